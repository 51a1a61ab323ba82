//! A simulated model. It says that it is not a real model, and then counts the words and characters
//! of the prompt.
//!
//! The same prompt gives the same tokens. As with a real model, a token is a word or a part of a
//! word. Joined together, the tokens are the text of the answer.

/// The maximum length of a token in characters. The tokens of real models are about as long.
const TOKEN_CHARS_MAX: usize = 6;

/// Returns the tokens of the answer to a prompt.
pub fn tokens(prompt: &str) -> Vec<String> {
    let text = text(prompt);
    let words = text.split_inclusive(' ').flat_map(cut);
    words.map(str::to_owned).collect()
}

fn text(prompt: &str) -> String {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    let mut text = format!(
        "I am a pretend model: no mind, only a loop, so that you can watch tokens arrive. \
         Your prompt has {}.",
        counted(words.len(), "word")
    );
    for (at, word) in words.iter().enumerate() {
        let length = counted(word.chars().count(), "character");
        text.push_str(&format!("\n{}. “{word}” has {length}.", at + 1));
    }
    text.push_str("\nThat is all I can say about it.");
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Cuts a word into tokens of at most the maximum length.
fn cut(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(TOKEN_CHARS_MAX).map_or(rest.len(), |(at, _)| at);
        let (piece, later) = rest.split_at(end);
        rest = later;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PROMPT_CHARS_MAX, TOKENS_MAX};

    #[test]
    fn joined_tokens_are_the_text() {
        for prompt in
            ["x", "What is “this”?", "  spaces \n everywhere ", "čeština 😀😀😀😀😀😀😀😀"]
        {
            let tokens = tokens(prompt);
            assert_eq!(tokens.concat(), text(prompt));
            assert!(
                tokens.iter().all(|token| (1..=TOKEN_CHARS_MAX).contains(&token.chars().count()))
            );
            assert!(tokens.len() > 20);
        }
    }

    #[test]
    fn hub_can_keep_all_tokens_of_the_longest_answer() {
        let shortest_words = "a ".repeat(PROMPT_CHARS_MAX / 2);
        assert!((1_000..TOKENS_MAX).contains(&tokens(&shortest_words).len()));
        let longest_word = "a".repeat(PROMPT_CHARS_MAX);
        assert!(tokens(&longest_word).len() < TOKENS_MAX);
    }

    #[test]
    fn words_are_counted() {
        let text = text("a <b>bold</b>");
        assert!(text.contains("Your prompt has 2 words.\n1. “a” has 1 character.\n"), "{text}");
        assert!(text.contains("\n2. “<b>bold</b>” has 11 characters.\n"), "{text}");
    }
}
