//! Lengths of what kernels read and write, in arithmetic that cannot wrap: a wrapped product of sizes would pass the test
//! of a length, and the code behind that test reads and writes without further checks.

/// The product of `sizes`, or `None` where it is more than a slice can have.
#[inline]
pub(crate) fn elements<const N: usize>(sizes: [usize; N]) -> Option<usize> {
    // Zero first: there is nothing in a matrix without columns, however many rows it has.
    if sizes.contains(&0) {
        return Some(0);
    }
    sizes.into_iter().try_fold(1usize, |product, size| product.checked_mul(size))
}

/// Panics unless `rows` rows of `columns` numbers from column `first` on, `stride` apart, lie in `len` numbers.
#[inline]
pub(crate) fn check_rows(len: usize, stride: usize, rows: usize, first: usize, columns: usize) {
    if rows == 0 {
        return;
    }
    let end = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(first)?.checked_add(columns));
    assert!(
        end.is_some_and(|end| end <= len),
        "{rows} rows, {stride} apart, of {columns} numbers from {first} on: more than {len} numbers"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_that_wrap_are_none() {
        assert_eq!(elements([3, 4, 5]), Some(60));
        assert_eq!(elements([usize::MAX, 2, 0]), Some(0));
        assert_eq!(elements([1 << (usize::BITS / 2), 1 << (usize::BITS / 2)]), None);
    }
}
