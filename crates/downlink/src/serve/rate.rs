//! Rate limits: how often one key, such as the address of a peer, may do something.
//!
//! [`Rate`] is a setting. [`RateLimiter`] applies one rate to many keys, and keeps one number for
//! each key (the generic cell rate algorithm, GCRA). The limiter takes the time as a parameter. Its
//! memory is bounded: with too many keys at once, it forgets the keys that were used least
//! recently. A forgotten key may use its whole burst again.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The maximum number of uses of one key in a period of time, and the burst: the number of uses
/// that may come at once.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// use downlink::serve::Rate;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rate: Rate = "50/s".parse()?;
/// let fifty = NonZeroU32::new(50).ok_or("zero")?;
/// assert_eq!(rate, Rate::new(fifty, Duration::from_secs(1)));
/// assert_eq!("50/s,burst:50".parse(), Ok(rate));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// The time after which one more use is allowed, in nanoseconds.
    ///
    /// Invariant: at least 1.
    interval: u64,
    burst: NonZeroU32,
}

impl Rate {
    /// A rate that allows `count` uses in the time `per`. The burst is `count` too.
    pub fn new(count: NonZeroU32, per: Duration) -> Self {
        let interval = nanos(per) / u64::from(count.get());
        Self { interval: interval.max(1), burst: count }
    }

    /// Sets the burst: the maximum number of uses that may come at once, after a pause.
    pub fn with_burst(self, burst: NonZeroU32) -> Self {
        Self { burst, ..self }
    }

    /// The time after which the whole burst is available again, in nanoseconds.
    fn recovery(self) -> u64 {
        self.interval.saturating_mul(self.burst.get().into())
    }

    /// The maximum time, in nanoseconds, by which a key may be ahead of its rate. If the key is
    /// ahead by more, its next use has to wait.
    fn tolerance(self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst.get()) - 1)
    }
}

/// The error of a text that is not a rate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParseRateError(String);

impl fmt::Display for ParseRateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "{text:?} is not a rate; write a number above 0 and a unit of time, as in 50/s, 600/m \
             or 1000/h, and perhaps the number that may come at once: 50/s,burst:200"
        )
    }
}

impl std::error::Error for ParseRateError {}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        let parsed = || {
            let (rate, burst) = match text.split_once(',') {
                Some((rate, burst)) => (rate, Some(burst.trim().strip_prefix("burst:")?)),
                None => (text, None),
            };
            let (count, unit) = rate.split_once('/')?;
            let seconds = match unit.trim() {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                _ => return None,
            };
            let rate = Self::new(whole(count)?, Duration::from_secs(seconds));
            Some(match burst {
                Some(burst) => rate.with_burst(whole(burst)?),
                None => rate,
            })
        };
        parsed().ok_or_else(|| ParseRateError(text.to_owned()))
    }
}

/// Parses digits. A sign is refused, although the standard library accepts a plus.
fn whole(text: &str) -> Option<NonZeroU32> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Limits the rate of each of many keys, with bounded memory.
///
/// The limiter keeps a key until its whole burst is available again, but it keeps at most
/// `keys_max` keys. If there are more keys, it forgets the keys that were used least recently, even
/// if their bursts are not available yet. It forgets such a key only after at least `keys_max / 2`
/// other keys were used. So a peer needs at least that many keys to get around the limit.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use downlink::serve::RateLimiter;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = RateLimiter::new("2/m".parse()?, 1_000);
/// let now = Instant::now();
/// assert_eq!(limiter.take("ada", now), Ok(()));
/// assert_eq!(limiter.take("ada", now), Ok(()));
/// assert_eq!(limiter.take("ada", now), Err(Duration::from_secs(30)));
/// assert_eq!(limiter.take("bob", now), Ok(()));
/// # Ok(())
/// # }
/// ```
pub struct RateLimiter<K> {
    rate: Rate,
    keys_max: usize,
    /// The lock is held for one lookup, and in some calls also for a turn. A turn looks at each key
    /// of `older`. The lock is never held together with another lock.
    keys: Mutex<Keys<K>>,
}

/// For each key, the time at which its whole burst is available again. A key whose time has passed
/// is like a key that was never used. In a *turn*, `recent` becomes `older`, and the keys that were
/// in `older` are forgotten. Only keys that still have to wait may move to `recent` instead (see
/// `turn`).
///
/// Invariant: a key is in at most one of the maps. Each map has at most `keys_max / 2` keys, or at
/// most one key if this number is 0.
struct Keys<K> {
    /// The time of the first use. All other times are nanoseconds after it.
    began: Option<Instant>,
    /// The keys that were used after the last turn, and the keys that the last turn moved here from
    /// `older`.
    recent: HashMap<K, u64>,
    /// The keys that were used between the last two turns, and not since then.
    older: HashMap<K, u64>,
    /// The time of the last turn, at which `recent` became `older`.
    turned: u64,
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// A limiter that remembers at most `keys_max` keys (but at least two).
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        let (recent, older) = (HashMap::new(), HashMap::new());
        let keys = Keys { began: None, recent, older, turned: 0 };
        Self { rate, keys_max, keys: Mutex::new(keys) }
    }

    /// Counts one use of a key.
    ///
    /// # Errors
    ///
    /// If the rate is exceeded, how long the key has to wait. In this case the use does not count.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        self.measure(key, now, 1)
    }

    /// Counts several uses of a key at once. If the key may be used now, all uses count, even if
    /// they are more than the burst. The next use then has to wait for all of them.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn take_many(&self, key: K, uses: NonZeroU32, now: Instant) -> Result<(), Duration> {
        self.measure(key, now, uses.get())
    }

    /// Checks whether a key may be used, without counting a use. For example, a limit for failed
    /// attempts calls this before each attempt, and [`take`](Self::take) only after an attempt that
    /// has failed.
    ///
    /// # Errors
    ///
    /// If the rate is exceeded, how long the key has to wait.
    pub fn check(&self, key: K, now: Instant) -> Result<(), Duration> {
        self.measure(key, now, 0)
    }

    /// The number of keys that the limiter remembers.
    pub fn keys(&self) -> usize {
        let keys = self.keys.lock();
        keys.recent.len() + keys.older.len()
    }

    fn measure(&self, key: K, now: Instant, uses: u32) -> Result<(), Duration> {
        let mut keys = self.keys.lock();
        let began = *keys.began.get_or_insert(now);
        let now = nanos(now.saturating_duration_since(began));
        let forgotten = keys.turn(now, self.rate.recovery(), self.keys_max);
        let used = keys.recent.remove(&key).or_else(|| keys.older.remove(&key));
        let filled = used.unwrap_or(now).max(now);
        let wait = (filled - now).saturating_sub(self.rate.tolerance());
        let added = if wait == 0 { self.rate.interval.saturating_mul(uses.into()) } else { 0 };
        let filled = filled.saturating_add(added);
        // A key that is not ahead of its rate needs no memory.
        if filled > now {
            keys.recent.insert(key, filled);
        }
        drop(keys);
        // Freeing many keys takes a moment, so it happens after the lock is released.
        drop(forgotten);
        if wait == 0 { Ok(()) } else { Err(Duration::from_nanos(wait)) }
    }
}

impl<K: Hash + Eq> Keys<K> {
    /// Does a turn when one is due: `recent` becomes `older`, and nearly all keys of the former
    /// `older` are forgotten. Returns the forgotten keys. A turn is due if the time since the last
    /// turn is long enough for a whole burst to recover, or if `recent` has half of `keys_max`
    /// keys.
    ///
    /// A key of the former `older` was not used since the last turn. If the turn is due because of
    /// the time, nearly every such key has its whole burst again, and is forgotten. Only a key that
    /// was charged for more than its burst may still have to wait for its whole burst. Such a key
    /// moves to `recent`, while `recent` has room. If the turn is due because `recent` is full, all
    /// keys of the former `older` are forgotten.
    fn turn(&mut self, now: u64, recovery: u64, keys_max: usize) -> HashMap<K, u64> {
        let half = (keys_max / 2).max(1);
        let is_full = self.recent.len() >= half;
        if !is_full && now.saturating_sub(self.turned) < recovery {
            return HashMap::new();
        }
        self.turned = now;
        let recent = std::mem::take(&mut self.recent);
        let mut forgotten = std::mem::replace(&mut self.older, recent);
        if !is_full {
            let ahead = forgotten.extract_if(|_, filled| *filled > now);
            // One place is left for the key that is used now.
            self.recent.extend(ahead.take(half - 1));
        }
        forgotten
    }
}

impl<K> fmt::Debug for RateLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("rate", &self.rate)
            .field("keys_max", &self.keys_max)
            .finish_non_exhaustive()
    }
}

/// A time in nanoseconds. A time of more than 584 years counts as 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().expect("the text is a rate")
    }

    #[test]
    fn a_rate_has_a_count_a_unit_and_perhaps_a_burst() {
        let ten = NonZeroU32::new(10).expect("ten is not zero");
        for (text, seconds) in [("10/s", 1), ("10/m", 60), (" 10 / h ", 3_600)] {
            assert_eq!(rate(text), Rate::new(ten, Duration::from_secs(seconds)));
        }
        let hundred = NonZeroU32::new(100).expect("a hundred is not zero");
        assert_eq!(rate("10/s,burst:100"), rate("10/s").with_burst(hundred));
        for text in [
            "",
            "10",
            "/s",
            "10/",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "10/d",
            "10/s,100",
            "10/s,burst:0",
            "10/s,burst:",
            "10/s,burst:1,burst:2",
            "99999999999/s",
            "10/s/s",
            "ten/s",
            "10/S",
        ] {
            let error = text.parse::<Rate>().expect_err(text).to_string();
            assert!(error.contains("50/s,burst:200"), "{error}");
        }
    }

    #[test]
    fn after_a_burst_the_next_uses_are_allowed_at_the_rate() {
        let limiter = RateLimiter::new(rate("10/s,burst:3"), 10);
        let (start, tenth) = (Instant::now(), Duration::from_millis(100));
        for _ in 0..3 {
            assert_eq!(limiter.take("a", start), Ok(()));
        }
        assert_eq!(limiter.check("a", start), Err(tenth));
        assert_eq!(limiter.take("a", start), Err(tenth));
        assert_eq!(limiter.take("a", start + tenth / 2), Err(tenth / 2));
        assert_eq!(limiter.take("a", start + tenth), Ok(()));
        assert_eq!(limiter.take("a", start + tenth), Err(tenth));
        for _ in 0..3 {
            assert_eq!(limiter.take("a", start + 10 * tenth), Ok(()));
        }
        assert_eq!(limiter.take("a", start + 10 * tenth), Err(tenth));
    }

    #[test]
    fn many_uses_at_once_delay_the_next_use() {
        let limiter = RateLimiter::new(rate("1/s"), 10);
        let (now, ten) = (Instant::now(), NonZeroU32::new(10).expect("ten is not zero"));
        assert_eq!(limiter.take_many("a", ten, now), Ok(()));
        assert_eq!(limiter.take("a", now), Err(Duration::from_secs(10)));
        assert_eq!(limiter.take_many("a", ten, now), Err(Duration::from_secs(10)));
        assert_eq!(limiter.take("a", now + Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn a_check_counts_nothing_and_remembers_nothing() {
        let limiter = RateLimiter::new(rate("1/h"), 10);
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(limiter.check("a", now), Ok(()));
        }
        assert_eq!(limiter.keys(), 0);
        assert_eq!(limiter.take("a", now), Ok(()));
        assert!(limiter.check("a", now).is_err());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let limiter = RateLimiter::new(rate("1/h"), 100);
        let now = Instant::now();
        for key in 0..10_000 {
            assert_eq!(limiter.take(key, now), Ok(()));
            assert!(limiter.keys() <= 100, "{}", limiter.keys());
        }
    }

    #[test]
    fn a_key_that_keeps_trying_is_not_forgotten() {
        let limiter = RateLimiter::new(rate("1/h"), 100);
        let now = Instant::now();
        assert_eq!(limiter.take(0, now), Ok(()));
        for other in 1..10_000 {
            assert_eq!(limiter.take(other, now), Ok(()));
            assert!(limiter.check(0, now).is_err(), "after {other} other keys");
        }
    }

    #[test]
    fn keys_are_forgotten_when_their_burst_is_available_again() {
        let limiter = RateLimiter::new(rate("10/s"), 1_000);
        let now = Instant::now();
        for key in 0..100 {
            assert_eq!(limiter.take(key, now), Ok(()));
        }
        for seconds in 1..=3 {
            assert_eq!(limiter.take(1_000, now + Duration::from_secs(seconds)), Ok(()));
        }
        assert_eq!(limiter.keys(), 1);
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let slowest = Rate::new(NonZeroU32::MIN, Duration::MAX).with_burst(NonZeroU32::MAX);
        let fastest = Rate::new(NonZeroU32::MAX, Duration::ZERO);
        let later = Instant::now() + Duration::from_secs(1_000_000_000);
        for rate in [slowest, fastest] {
            let limiter = RateLimiter::new(rate, 0);
            for now in [Instant::now(), later, Instant::now()] {
                let _ = limiter.take("a", now);
                let _ = limiter.check("b", now);
            }
            assert!(limiter.keys() <= 2);
        }
    }

    /// `take_many` may charge a key for more than its burst. Such a key must still wait after the
    /// time in which a whole burst recovers.
    #[test]
    fn a_key_is_remembered_until_its_whole_burst_is_available_again() {
        let limiter = RateLimiter::new(rate("1/s"), 10);
        let (start, ten) = (Instant::now(), NonZeroU32::new(10).expect("ten is not zero"));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limiter.take_many("a", ten, start), Ok(()));
        for seconds in 1..10 {
            assert_eq!(limiter.take("b", at(seconds)), Ok(()));
        }
        assert_eq!(limiter.check("a", at(9)), Err(Duration::from_secs(1)));
        assert_eq!(limiter.take("a", at(10)), Ok(()));
    }

    #[test]
    fn the_number_of_keys_is_bounded_even_if_no_burst_is_available_again() {
        let limiter = RateLimiter::new(rate("1/s"), 100);
        let (start, many) = (Instant::now(), NonZeroU32::MAX);
        for key in 0..1_000 {
            let now = start + Duration::from_millis(100) * key;
            assert_eq!(limiter.take_many(key, many, now), Ok(()));
            assert!(limiter.keys() <= 100, "{}", limiter.keys());
        }
        assert!(limiter.keys() >= 50, "{}", limiter.keys());
    }

    proptest! {
        /// The limiter admits the same uses as buckets of tokens that are filled at the rate. Each
        /// key has one bucket. A use of many tokens may leave a debt in the bucket.
        #[test]
        fn the_limiter_agrees_with_buckets_of_tokens(
            burst in 1_u32..6,
            steps in prop::collection::vec((0_u64..2_500, 0_usize..3, 0_u32..20), 1..80),
        ) {
            let burst_max = NonZeroU32::new(burst).expect("the range begins at 1");
            let limiter = RateLimiter::new(rate("1/s").with_burst(burst_max), 10);
            let start = Instant::now();
            // A bucket counts thousandths of a token. At one use per second, it gains one
            // thousandth in each millisecond.
            let full = i64::from(burst) * 1_000;
            let (mut now, mut buckets) = (0, [full; 3]);
            for (pause, key, uses) in steps {
                now += pause;
                for bucket in &mut buckets {
                    *bucket = (*bucket + pause as i64).min(full);
                }
                let missing = u64::try_from(1_000 - buckets[key]).unwrap_or(0);
                let expected = if missing == 0 {
                    buckets[key] -= i64::from(uses) * 1_000;
                    Ok(())
                } else {
                    Err(Duration::from_millis(missing))
                };
                let at = start + Duration::from_millis(now);
                let found = match NonZeroU32::new(uses) {
                    Some(uses) => limiter.take_many(key, uses, at),
                    None => limiter.check(key, at),
                };
                prop_assert_eq!(found, expected);
            }
        }
    }
}
