//! Places in an order: strings between which there is always room for another.
//!
//! A place is a fraction in base 62, without the leading `0.` and without zeros at its end; as
//! strings they sort as the fractions do, in every language. Whoever moves something writes one
//! string, so it is never in two places and never gone. The crate `fractional_index` (2.0.2) does
//! the same and was not taken: it panics on, or wrongly orders, strings of others.

/// The digits, in the order of their bytes.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE: usize = DIGITS.len();
/// Characters that a place may have: what 1,000 moves in a row between the same two need, several times.
const LENGTH_MAX: usize = 4_096;
/// Digits of the salt that make places differ which two people make at once for the same spot.
const SALT_DIGITS: usize = 3;

/// That there is no place between two others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// This is none that [`place_between`] gave.
    #[error("{0:?} is not a place in an order: write one that place_between gave")]
    NotAPlace(String),
    /// The first is not before the second: two people gave the same place, or they are swapped.
    #[error("{after:?} is not before {before:?}: give one of the two another place first")]
    NotInOrder {
        /// What it was to be after.
        after: String,
        /// What it was to be before.
        before: String,
    },
    /// It would have more than 4,096 characters.
    #[error("there is no room left at {0:?}: give what is around it new places")]
    Full(String),
}

/// Whether this is a place in an order.
pub fn is_place(text: &str) -> bool {
    let digits = text.len() <= LENGTH_MAX && text.bytes().all(|byte| DIGITS.contains(&byte));
    digits && !text.is_empty() && !text.ends_with('0')
}

/// A place after one and before another; without either, the first there is. The salt makes it
/// differ from what somebody else makes for the same spot at the same time: give a random number,
/// or one made of the replica's actor id.
///
/// # Errors
/// [`NoPlace`].
///
/// ```
/// use concord::entity::write::place_between;
///
/// let first = place_between(None, None, 7)?;
/// let last = place_between(Some(&first), None, 7)?;
/// let between = place_between(Some(&first), Some(&last), 7)?;
/// assert!(first < between && between < last);
/// # Ok::<(), concord::entity::write::NoPlace>(())
/// ```
pub fn place_between(
    after: Option<&str>,
    before: Option<&str>,
    salt: u64,
) -> Result<String, NoPlace> {
    let low = digits(after.unwrap_or_default())?;
    let place = match before {
        None => above(&low),
        Some(before) => {
            let high = digits(before)?;
            if low >= high || high.is_empty() {
                let (after, before) = (after.unwrap_or_default().to_owned(), before.to_owned());
                return Err(NoPlace::NotInOrder { after, before });
            }
            let middle = if low.is_empty() { below(&high) } else { middle(&low, &high) };
            // What is put behind it must not carry it past the other.
            if high.starts_with(&middle) { self::middle(&middle, &high) } else { middle }
        }
    };
    let text: String = place.into_iter().chain(salted(salt)).map(letter).collect();
    if text.len() > LENGTH_MAX {
        return Err(NoPlace::Full(after.or(before).unwrap_or_default().to_owned()));
    }
    Ok(text)
}

fn letter(digit: usize) -> char {
    DIGITS.get(digit).copied().map_or('0', char::from)
}

/// Digits that make a place differ, of which the last is no zero.
fn salted(salt: u64) -> [usize; SALT_DIGITS] {
    let mut rest = usize::try_from(salt % (1 << 31)).unwrap_or_default();
    let mut digits = [0; SALT_DIGITS];
    for digit in &mut digits {
        *digit = 1 + rest % (BASE - 1);
        rest /= BASE - 1;
    }
    digits
}

fn digits(text: &str) -> Result<Vec<usize>, NoPlace> {
    if !text.is_empty() && !is_place(text) {
        let shown = text.chars().take(64).collect();
        return Err(NoPlace::NotAPlace(shown));
    }
    let digit = |byte: u8| DIGITS.iter().position(|known| *known == byte).unwrap_or_default();
    Ok(text.bytes().map(digit).collect())
}

/// A short one above: one more, as a number of as many digits as are at their limit before it, and
/// one. So the length grows with the logarithm of how many are put at the end.
fn above(low: &[usize]) -> Vec<usize> {
    if low.is_empty() {
        return vec![BASE / 2];
    }
    let (mut digits, full) = counted(low, BASE - 1);
    for digit in digits.iter_mut().skip(full).rev() {
        if *digit < BASE - 1 {
            *digit += 1;
            break;
        }
        *digit = 0;
    }
    digits
}

/// A short one below, likewise.
fn below(high: &[usize]) -> Vec<usize> {
    let (mut digits, full) = counted(high, 0);
    for digit in digits.iter_mut().skip(full).rev() {
        if *digit > 0 {
            *digit -= 1;
            break;
        }
        *digit = BASE - 1;
    }
    digits
}

/// The digits that count, and how many of them are at their limit from the first on.
fn counted(digits: &[usize], limit: usize) -> (Vec<usize>, usize) {
    let full = digits.iter().take_while(|digit| **digit == limit).count();
    let padded = digits.iter().copied().chain(std::iter::repeat(0));
    (padded.take(2 * full + 1).collect(), full)
}

/// One in the middle of two that are in order.
fn middle(low: &[usize], high: &[usize]) -> Vec<usize> {
    let mut middle = Vec::with_capacity(high.len() + 1);
    // Once a digit is below that of the other, there is no limit above any more.
    let mut is_limited = true;
    for at in 0.. {
        let below = low.get(at).copied().unwrap_or(0);
        let above = if is_limited { high.get(at).copied().unwrap_or(0) } else { BASE };
        if above > below + 1 {
            middle.push(below.midpoint(above));
            break;
        }
        is_limited &= above <= below;
        middle.push(below);
    }
    middle
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        /// However things are moved, order is kept and there is room.
        fn there_is_always_a_place_between(moves: Vec<(usize, u64)>) -> bool {
            let mut places: Vec<String> = Vec::new();
            for (at, salt) in moves {
                let at = at % (places.len() + 1);
                let after = at.checked_sub(1).and_then(|at| places.get(at)).map(String::as_str);
                let place = place_between(after, places.get(at).map(String::as_str), salt);
                places.insert(at, place.unwrap());
            }
            places.windows(2).all(|pair| pair[0] < pair[1]) && places.iter().all(|it| is_place(it))
        }

        /// Anything may come from others.
        fn strings_of_others_are_refused_or_ordered(one: String, other: String) -> bool {
            match place_between(Some(&one), Some(&other), 1) {
                Ok(place) => one < place && place < other,
                Err(_) => !is_place(&one) || !is_place(&other) || one >= other,
            }
        }
    }

    #[test]
    fn short_ones_of_others_are_ordered() {
        let some: Vec<String> =
            ["1", "2", "01", "001", "z", "zz", "y1", "1001", "1002", "V", "00V"]
                .map(str::to_owned)
                .to_vec();
        for one in &some {
            for other in &some {
                let place = place_between(Some(one), Some(other), 99);
                assert_eq!(place.is_ok(), one < other, "{one} {other} {place:?}");
                if let Ok(place) = place {
                    assert!(*one < place && place < *other, "{one} {place} {other}");
                }
            }
            let (below, above) =
                (place_between(None, Some(one), 5), place_between(Some(one), None, 5));
            assert!(below.unwrap() < *one && *one < above.unwrap());
        }
    }

    #[test]
    fn ten_thousand_at_either_end_stay_short_and_fit_in_the_middle() {
        let (mut first, mut last) = (place_between(None, None, 1).unwrap(), String::new());
        let mut high = place_between(Some(&first), None, 1).unwrap();
        let low = first.clone();
        for number in 0..10_000 {
            last = place_between(
                Some(&last).filter(|it| !it.is_empty()).map(String::as_str),
                None,
                number,
            )
            .unwrap();
            first = place_between(None, Some(&first), number).unwrap();
        }
        assert!(last.len() < 16 && first.len() < 16, "{} {}", last.len(), first.len());
        for number in 0..300 {
            high = place_between(Some(&low), Some(&high), number).unwrap();
        }
        assert!(low < high && high.len() < 1_500, "{}", high.len());
    }
}
