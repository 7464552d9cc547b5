//! A naive model: a tensor as a list of storage positions, without strides.

/// Extents, and the place in the storage of each element in row-major order.
#[derive(Debug, Clone)]
pub struct Model {
    pub dims: Vec<usize>,
    pub at: Vec<usize>,
}

impl Model {
    /// A new storage.
    pub fn new(dims: &[usize]) -> Self {
        Self { dims: dims.to_vec(), at: (0..dims.iter().product()).collect() }
    }

    /// The view of extents `dims` whose element at a coordinate is this one's at `back(coordinate)`.
    pub fn map(&self, dims: &[usize], mut back: impl FnMut(&[usize]) -> Vec<usize>) -> Self {
        let place = |c: Vec<usize>| self.at[position(&self.dims, &back(&c))];
        Self { dims: dims.to_vec(), at: coordinates(dims).into_iter().map(place).collect() }
    }
}

/// Every coordinate in row-major order.
pub fn coordinates(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().fold(vec![vec![]], |all, &extent| {
        all.iter().flat_map(|c| (0..extent).map(move |i| [&c[..], &[i]].concat())).collect()
    })
}

/// Row-major index of a coordinate.
pub fn position(dims: &[usize], c: &[usize]) -> usize {
    assert_eq!(dims.len(), c.len());
    c.iter().zip(dims).fold(0, |at, (&i, &extent)| {
        assert!(i < extent, "{c:?} in {dims:?}");
        at * extent + i
    })
}

/// The positions that Python's `[start:end:step]` takes of a list of `extent`.
pub fn slice(extent: usize, start: Option<isize>, end: Option<isize>, step: isize) -> Vec<usize> {
    let n = extent as isize;
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let bound = |v: isize| (if v < 0 { v + n } else { v }).clamp(low, high);
    let first = start.map_or(if step > 0 { low } else { high }, bound);
    let last = end.map_or(if step > 0 { high } else { low }, bound);
    let mut out = Vec::new();
    let mut at = first;
    while if step > 0 { at < last } else { at > last } {
        out.push(at as usize);
        at += step;
    }
    out
}
