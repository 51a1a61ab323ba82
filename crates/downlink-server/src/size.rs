//! Parses sizes in bytes in flags, environment variables, the settings file and retention rules.

/// The units, and the number of bytes in each. The case of the letters does not matter.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Parses a number of bytes such as `256MiB`, `64 kB` or `8192`.
pub(crate) fn parse_bytes<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let digits = text.find(|at: char| !at.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
    let (Ok(number), Some((_, bytes))) = (number.parse::<u64>(), unit) else {
        return Err(format!(
            "{text:?} is not a number of bytes; write a whole number, with or without a unit: 8192, \
             64KiB, 256MiB, 16GiB (or kB, MB, GB for powers of 1,000)"
        ));
    };
    let bytes = number.checked_mul(*bytes).and_then(|bytes| N::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("{text} is too large for this setting"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_have_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("8192", 8_192),
            ("1B", 1),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("16GiB", 16 << 30),
            ("64kB", 64_000),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(parse_bytes::<u64>(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn an_error_about_an_invalid_size_gives_examples() {
        for text in ["", "MiB", "-1", "1.5GiB", "256M", "1 000", "lots", "18446744073709551616"] {
            assert!(parse_bytes::<u64>(text).unwrap_err().contains("256MiB"), "{text}");
        }
    }

    #[test]
    fn a_size_too_large_for_its_setting_is_refused() {
        assert_eq!(parse_bytes::<u32>("4294967295"), Ok(u32::MAX));
        assert!(parse_bytes::<u32>("4GiB").unwrap_err().contains("4GiB is too large"));
        assert!(parse_bytes::<u64>("99999999999TiB").unwrap_err().contains("is too large"));
    }
}
