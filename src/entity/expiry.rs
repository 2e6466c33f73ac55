//! How long entities are kept that are deleted, as a schema says it: `90d`.

use std::{fmt, time::Duration};

/// The units, the largest first, and their seconds.
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// The longest time in seconds, a hundred years: who wants more wants no end.
const SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// A time from a second to a hundred years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    seconds: u64,
}

impl Expiry {
    /// What to write, for those who wrote something else.
    pub(super) const EXPECTED: &'static str =
        "write a number and a unit: 90d; s, m (minutes), h, d or w, up to 100 years";

    /// Reads `90d`.
    pub fn parse(text: &str) -> Option<Self> {
        let unit = text.chars().next_back()?;
        let (_, length) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let number = text.strip_suffix(unit)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = number.parse::<u64>().ok()?.checked_mul(length)?;
        (1..=SECONDS_MAX).contains(&seconds).then_some(Self { seconds })
    }

    /// How long that is.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The same in milliseconds.
    pub fn ms(self) -> i64 {
        // A hundred years are far from the end of an i64.
        i64::try_from(self.seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(_, length)| self.seconds.is_multiple_of(*length));
        let (unit, length) = whole.unwrap_or(('s', 1));
        write!(f, "{}{unit}", self.seconds / length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds, said) in [
            ("1s", 1, "1s"),
            ("90m", 5_400, "90m"),
            ("24h", 86_400, "1d"),
            ("90d", 7_776_000, "90d"),
            ("2w", 1_209_600, "2w"),
            ("36500d", SECONDS_MAX, "36500d"),
        ] {
            let expiry = Expiry::parse(text).unwrap();
            assert_eq!(expiry.duration(), Duration::from_secs(seconds), "{text}");
            assert_eq!(expiry.ms(), i64::try_from(seconds).unwrap() * 1_000);
            assert_eq!(expiry.to_string(), said);
            assert_eq!(Expiry::parse(said), Some(expiry));
        }
        for wrong in [
            "",
            "d",
            "90",
            "0d",
            "-1d",
            "+1d",
            "1.5d",
            "90 d",
            "90D",
            "36501d",
            "99999999999999999w",
        ] {
            assert_eq!(Expiry::parse(wrong), None, "{wrong}");
        }
    }
}
