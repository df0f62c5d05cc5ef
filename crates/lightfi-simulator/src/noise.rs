//! Repeatable noise: numbers that look random and depend only on their arguments.
//!
//! There is no generator with a state, so `building` and `world` stay pure functions of seed and time.

/// Returns a well mixed number of `seed` and `parts` (splitmix64, one step per part).
pub(super) fn hash(seed: u64, parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(mix(seed), |state, part| mix(state ^ part))
}

fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns a number in `[0, 1)`.
pub(super) fn uniform(seed: u64, parts: &[u64]) -> f64 {
    // An f64 holds 53 bits exactly.
    (hash(seed, parts) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Returns a number in `[-1, 1)` that changes smoothly: a new value at each whole `at`, eased in between.
pub(super) fn smooth(seed: u64, topic: u64, at: f64) -> f64 {
    let (before, part) = (at.floor(), at - at.floor());
    let value = |step: i64| 2.0 * uniform(seed, &[topic, step as u64]) - 1.0;
    let (from, to) = (value(before as i64), value(before as i64 + 1));
    from + (to - from) * part * part * (3.0 - 2.0 * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_repeat_and_are_uniform() {
        assert_eq!(hash(1, &[2, 3]), hash(1, &[2, 3]));
        assert_ne!(hash(1, &[2, 3]), hash(1, &[3, 2]));
        let mean = (0..10_000).map(|n| uniform(7, &[n])).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
    }

    #[test]
    fn smooth_noise_makes_no_jumps() {
        let mut last = smooth(7, 1, 0.0);
        for step in 1..10_000 {
            let next = smooth(7, 1, f64::from(step) / 100.0);
            assert!((next - last).abs() < 0.05 && (-1.0..1.0).contains(&next));
            last = next;
        }
    }
}
