//! The time of a change: a clock that people read, and that does not run behind what it answers.

/// Seconds that the time of a dependency may be ahead of our clock and still be followed: a day.
pub const AHEAD_S_MAX: i64 = 86_400;

/// The time of a new change, in seconds since 1970: now, or the latest of the times of its
/// dependencies if one of them is later. With the counter of its operations, which is always
/// greater than those of its dependencies, that is a hybrid logical clock: it orders every change
/// after what it builds on, and stays close to the time on the wall.
///
/// A dependency that is more than [`AHEAD_S_MAX`] ahead of our clock is not followed. Somebody's
/// clock is wrong then, by so much that following it would carry the mistake into every later
/// change of everybody, until the world's clocks have caught up. Waiting or refusing would stop
/// people from working because of a stranger's clock. So the change is made now, with our time; it
/// is still ordered after what it builds on by its dependencies and its counter, which is what
/// merging goes by, and the log marks it ([`Entry::is_behind`](super::Entry::is_behind)). The same
/// rule holds if the wrong clock is ours, a day or more behind: nobody can tell the two apart here.
pub fn change_time(now: i64, dependencies: impl IntoIterator<Item = i64>) -> i64 {
    let limit = now.saturating_add(AHEAD_S_MAX);
    dependencies.into_iter().filter(|time| *time <= limit).fold(now, i64::max)
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn a_time_is_never_before_now_nor_before_what_it_follows(now: i64, times: Vec<i64>) -> bool {
            let time = change_time(now, times.clone());
            let limit = now.saturating_add(AHEAD_S_MAX);
            time >= now && time <= limit && times.iter().all(|it| *it <= time || *it > limit)
        }
    }

    #[test]
    fn a_clock_that_is_a_day_ahead_is_followed_and_one_beyond_is_not() {
        let now = 1_700_000_000;
        assert_eq!(change_time(now, []), now);
        assert_eq!(change_time(now, [0, now - 5]), now);
        assert_eq!(change_time(now, [now + 5, now + 3]), now + 5);
        assert_eq!(change_time(now, [now + AHEAD_S_MAX]), now + AHEAD_S_MAX);
        assert_eq!(change_time(now, [now + AHEAD_S_MAX + 1, now + 7]), now + 7);
        assert_eq!(change_time(now, [i64::MAX]), now);
    }
}
