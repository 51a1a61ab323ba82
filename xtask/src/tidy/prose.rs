//! The rule for plain English: it limits turns of phrase that a colleague would not use.
//!
//! The rule reads comments, documents and messages. Some hits of its patterns are good sentences.
//! So the rule only limits the number of hits per 10,000 words. Above the limit, each hit is a
//! finding. Projects with plain English (quinn, axum, ripgrep, h2) have 1 to 3 hits per 10,000
//! words.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::Context as _;
use regex::Regex;

use crate::tidy::{Finding, Rule};

/// The maximum number of hits per 10,000 words. At this number there is a hit on every third page.
const HITS_MAX: f64 = 8.0;

/// The files and folders with prose.
const PATHS: [&str; 6] = ["crates", "docs", "examples", "js", "README.md", "CHANGELOG.md"];
/// Folders without prose of this project.
const SKIPPED: [&str; 4] = ["target", ".git", "node_modules", "record"];

/// A turn of phrase.
struct Turn {
    name: &'static str,
    pattern: &'static str,
    /// An exception: another pattern, which is compared with the text from the group `next` of
    /// `pattern` to the end of the sentence. If the text matches, the turn is not a hit.
    unless: Option<&'static str>,
}

const TURNS: [Turn; 7] = [
    // "what is missing", "what it holds back": the sentence lacks a noun.
    Turn {
        name: "free what",
        pattern: r"(?:^|[.;:,(]\s+|\b(?:and|or|of|for|with|in|to|is|that|than|by|from|as)\s+)what\s+(?:is|are|was|were|has|have|had|comes?|came|goes|went|stands?|stood|lies|follows?|it|they|he|she|a|an|the|one|nobody|this|that|its|their|few|many|most|no)\b",
        unless: None,
    },
    // "who reads it", "for whom": name the reader, the caller, the client.
    Turn {
        name: "free who",
        pattern: r"(?:^|[.;:,(]\s+|\b(?:and|or|of|for|with|to|is|by|from|as|tell|tells|told)\s+)(?:who|whoever|whom|whose)\s+(?<next>)\w+",
        unless: Some(r"^(?:are|is)\s+you"),
    },
    Turn {
        name: "nobody, somebody",
        pattern: r"\b(?:nobody|somebody|anybody|everybody)\b",
        unless: None,
    },
    Turn {
        name: "is told",
        pattern: r"\b(?:is|are|was|were|be|been|being|gets?|got)\s+told\b",
        unless: None,
    },
    Turn {
        name: "some day",
        pattern: r"\bsome (?:time|day)\b(?<next>)|\bsees? to it\b|\bgo(?:es)? by the name\b|\bopen for business\b",
        unless: Some("^ (?:ago|to|later)"),
    },
    Turn {
        name: "stands",
        pattern: r"\b(?:it|they|that|which|what|event|row|mark|topic|entry)\s+(?:stands?|stood|lies|lay)\b(?<next>)",
        unless: Some("^ (?:for|by|in for)"),
    },
    Turn {
        name: "where clause",
        pattern: r"(?:^|[.;(]\s+)(?:Where|Of|At)\s+(?:there|what|which|whom|that)\b",
        unless: None,
    },
];

/// The prose of the project.
#[derive(Debug, Default)]
pub(super) struct Prose {
    words: usize,
    hits: Vec<Hit>,
}

/// A turn of phrase in a line.
#[derive(Debug)]
struct Hit {
    path: String,
    line: usize,
    turn: &'static str,
}

impl Prose {
    fn hits_per_10_000_words(&self) -> f64 {
        1e4 * self.hits.len() as f64 / self.words.max(1) as f64
    }

    /// Returns the hits as findings if there are more than the limit.
    pub(super) fn check(&self) -> Vec<Finding> {
        if self.hits_per_10_000_words() <= HITS_MAX {
            return Vec::new();
        }
        self.hits.iter().map(Hit::finding).collect()
    }
}

impl fmt::Display for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, hits) = (self.words, self.hits_per_10_000_words());
        write!(f, "prose: {words} words; {hits:.1} turns of phrase in 10,000, at most {HITS_MAX}")
    }
}

impl Hit {
    fn finding(&self) -> Finding {
        let advice = format!("\"{}\": name the thing or the person, in fewer words", self.turn);
        let (path, line, subject) = (self.path.clone(), self.line, self.turn.to_owned());
        Finding { path, line, rule: Rule::Prose, subject, advice }
    }
}

/// Reads all prose of the project.
pub(super) fn read(root: &Path) -> anyhow::Result<Prose> {
    let patterns = Patterns::new()?;
    let mut prose = Prose::default();
    for path in files(root)? {
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let path = path.strip_prefix(root).unwrap_or(&path);
        let path = path.to_string_lossy().replace('\\', "/");
        patterns.add(&path, &String::from_utf8_lossy(&bytes), &mut prose);
    }
    Ok(prose)
}

/// The files with prose, sorted.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in PATHS.map(|path| root.join(path)) {
        if path.is_dir() {
            walk(&path, &mut files)?;
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !SKIPPED.contains(&&*name) {
            walk(&path, files)?;
        } else if path.is_file() && Kind::of(&name).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

/// The parts of a file that are prose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Comments, and string literals of at least three words.
    Code,
    /// The whole text except fenced blocks.
    Text,
}

impl Kind {
    fn of(path: &str) -> Option<Self> {
        match path.rsplit_once('.')?.1 {
            "rs" | "js" | "css" => Some(Self::Code),
            "md" | "html" => Some(Self::Text),
            _ => None,
        }
    }
}

/// The compiled patterns.
struct Patterns {
    turns: Vec<(&'static str, Regex, Option<Regex>)>,
    /// A line with only a comment.
    whole_line: Regex,
    /// A comment after code.
    line_end: Regex,
    literal: Regex,
    /// Parts of comments that are not words: code, links, addresses.
    code_in_comment: Regex,
    code_in_text: Regex,
    placeholder: Regex,
}

impl Patterns {
    fn new() -> anyhow::Result<Self> {
        let turn = |turn: &Turn| {
            let regex = |pattern: &str| Regex::new(&format!("(?i){pattern}"));
            Ok((turn.name, regex(turn.pattern)?, turn.unless.map(regex).transpose()?))
        };
        Ok(Self {
            turns: TURNS.iter().map(turn).collect::<anyhow::Result<_>>()?,
            whole_line: Regex::new(r"^\s*//[/!]?\s?(.*)")?,
            line_end: Regex::new(r"\s//\s(.*)")?,
            literal: Regex::new(r#""((?:[^"\\]|\\.)*)""#)?,
            code_in_comment: Regex::new(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|https?://\S+")?,
            code_in_text: Regex::new(r"`[^`]*`|\]\([^)]*\)|https?://\S+")?,
            placeholder: Regex::new(r"\{[^}]*\}")?,
        })
    }

    /// Adds the words and the hits of a file.
    fn add(&self, path: &str, text: &str, prose: &mut Prose) {
        let sentences = match Kind::of(path) {
            Some(Kind::Code) => self.in_code(text),
            Some(Kind::Text) => self.in_text(text),
            None => Vec::new(),
        };
        for (line, sentence) in sentences {
            prose.words += sentence.split_whitespace().count();
            for turn in self.turns_in(&sentence) {
                prose.hits.push(Hit { path: path.to_owned(), line, turn });
            }
        }
    }

    /// The prose of a source file. Each part has its line number.
    fn in_code(&self, text: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (line, code) in (1..).zip(text.lines()) {
            let comment = self.whole_line.captures(code).or_else(|| self.line_end.captures(code));
            if let Some(comment) = comment {
                found.push((line, self.code_in_comment.replace_all(&comment[1], "X").into()));
                continue;
            }
            let literals = self.literal.captures_iter(code).map(|literal| literal.extract::<1>().1);
            for [literal] in literals.filter(|[literal]| literal.matches(' ').count() >= 2) {
                found.push((line, self.placeholder.replace_all(literal, "X").into()));
            }
        }
        found
    }

    /// The prose of a document. Each line has its number.
    fn in_text(&self, text: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut is_in_block = false;
        for (line, sentence) in (1..).zip(text.lines()) {
            if sentence.trim_start().starts_with("```") {
                is_in_block = !is_in_block;
            } else if !is_in_block {
                found.push((line, self.code_in_text.replace_all(sentence, "X").into()));
            }
        }
        found
    }

    /// The names of the turns of phrase in a sentence. If a turn occurs twice, its name is in the
    /// list twice.
    fn turns_in(&self, sentence: &str) -> Vec<&'static str> {
        let mut found = Vec::new();
        for (name, pattern, unless) in &self.turns {
            let mut from = 0;
            while let Some(hit) = pattern.captures_at(sentence, from) {
                let whole = hit.get_match();
                let next = hit.name("next").map(|next| &sentence[next.start()..]);
                let is_excused =
                    next.zip(unless.as_ref()).is_some_and(|(next, unless)| unless.is_match(next));
                if is_excused {
                    // Another hit may begin inside the excused hit.
                    let first = sentence[whole.start()..].chars().next();
                    from = whole.start() + first.map_or(1, char::len_utf8);
                } else {
                    found.push(*name);
                    from = whole.end();
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(sentence: &str) -> Vec<&'static str> {
        Patterns::new().unwrap().turns_in(sentence)
    }

    fn prose(path: &str, text: &str) -> Prose {
        let mut prose = Prose::default();
        Patterns::new().unwrap().add(path, text, &mut prose);
        prose
    }

    #[test]
    fn the_word_what_without_a_noun_is_found() {
        for sentence in
            ["What is missing lies after", "keep it, and what comes next", "(a; what it holds)"]
        {
            assert_eq!(turns(sentence), ["free what"], "{sentence}");
        }
        assert_eq!(turns("say what happened and what kind it is"), [] as [&str; 0]);
    }

    #[test]
    fn the_word_who_without_a_noun_is_found() {
        for sentence in ["Whom an append concerns", "for whom there is no place", "tells who asks"]
        {
            assert_eq!(turns(sentence), ["free who"], "{sentence}");
        }
        assert_eq!(turns("a reader who asks"), [] as [&str; 0]);
    }

    #[test]
    fn a_question_to_the_reader_is_not_a_hit() {
        assert_eq!(turns("Who are you?"), [] as [&str; 0]);
        assert_eq!(turns("Who are  yours, and who is that"), ["free who"]);
        assert_eq!(turns("Who are they"), ["free who"]);
    }

    #[test]
    fn words_such_as_nobody_are_found() {
        let sentence = "Nobody reads, somebody waits, anybody may, everybody does; a busybody";
        assert_eq!(turns(sentence), ["nobody, somebody"; 4]);
    }

    #[test]
    fn the_word_told_is_found_in_the_passive() {
        assert_eq!(turns("the reader is told, and they got  told"), ["is told", "is told"]);
        assert_eq!(turns("the caller told it"), [] as [&str; 0]);
    }

    #[test]
    fn the_phrase_some_day_is_found_if_it_does_not_measure_time() {
        for sentence in
            ["some time", "some day or other", "it sees to it", "opened, open for business"]
        {
            assert_eq!(turns(sentence), ["some day"], "{sentence}");
        }
        for sentence in ["some time ago", "some day later", "some time to wait", "sometimes"] {
            assert_eq!(turns(sentence), [] as [&str; 0], "{sentence}");
        }
    }

    #[test]
    fn the_word_stands_is_found_except_in_common_phrases() {
        assert_eq!(turns("the event stands there, and which lies below"), ["stands", "stands"]);
        for sentence in ["it stands for a name", "they stand by", "it stood in for one"] {
            assert_eq!(turns(sentence), [] as [&str; 0], "{sentence}");
        }
        assert_eq!(turns("it stands in the way"), ["stands"]);
    }

    #[test]
    fn a_where_clause_at_the_beginning_of_a_sentence_is_found() {
        assert_eq!(turns("Where there is one. At that it ends"), ["where clause"; 2]);
        assert_eq!(turns("the place where there is one"), [] as [&str; 0]);
    }

    #[test]
    fn comments_and_literals_of_code_are_prose() {
        let text = "//! One two.\nlet a = f(b); // three\nlet c = \"four five {six} seven\";\n\
                    let d = \"eight nine\";\nlet e = 10;\n";
        assert_eq!(prose("a.rs", text).words, 2 + 1 + 4);
        assert_eq!(prose("a.js", "/// `one two` is [a link](with words) at http://a/ b").words, 6);
    }

    #[test]
    fn documents_are_prose_except_for_code() {
        let text = "# One\n\n```text\nnobody\n```\nTwo `nobody` [three](nobody).\n";
        let prose = prose("a.md", text);
        assert_eq!((prose.words, prose.hits.len()), (2 + 3, 0));
    }

    #[test]
    fn files_of_other_types_have_no_prose() {
        assert_eq!(prose("a.toml", "# nobody").words, 0);
        assert_eq!(prose("rs", "// nobody").words, 0);
    }

    #[test]
    fn hits_are_findings_above_the_limit() {
        let words =
            |count: usize| format!("{}\n{}", "nobody\n".repeat(8), "word ".repeat(count - 8));
        assert_eq!(prose("a.md", &words(10_001)).check().len(), 0);
        assert_eq!(prose("a.md", &words(10_000)).check().len(), 0);
        let found = prose("a.md", &words(9_999)).check();
        assert_eq!(found.len(), 8);
        assert_eq!((found[7].line, found[7].rule), (8, Rule::Prose));
    }
}
