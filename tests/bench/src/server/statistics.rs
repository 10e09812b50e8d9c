//! Medians and percentiles.

/// Returns the median of the values, the upper one of two in the middle; `None` without values.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values = Vec::from_iter(values);
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Returns the smallest value that at least this percentage of the values does not exceed (nearest rank); 0 without
/// values. Sorts them.
pub(super) fn percentile(values: &mut [u32], percent: usize) -> u32 {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_in_any_order() {
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(4.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn this_percentage_of_values_does_not_exceed_the_percentile() {
        let mut hundred = Vec::from_iter((1..=100).rev());
        assert_eq!(percentile(&mut hundred, 99), 99);
        assert_eq!(percentile(&mut hundred, 50), 50);
        assert_eq!(percentile(&mut [7, 5], 99), 7);
        assert_eq!(percentile(&mut [], 99), 0);
    }
}
