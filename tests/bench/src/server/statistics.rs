//! Medians and percentiles.

/// The median of these, the upper one of two in the middle; none of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values = Vec::from_iter(values);
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The smallest value that so many percent of these do not exceed (nearest rank); 0 of nothing. Sorts them.
pub(super) fn percentile(values: &mut [u32], percent: usize) -> u32 {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle_whatever_the_order() {
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(4.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn so_many_percent_do_not_exceed_the_percentile() {
        let mut hundred = Vec::from_iter((1..=100).rev());
        assert_eq!(percentile(&mut hundred, 99), 99);
        assert_eq!(percentile(&mut hundred, 50), 50);
        assert_eq!(percentile(&mut [7, 5], 99), 7);
        assert_eq!(percentile(&mut [], 99), 0);
    }
}
