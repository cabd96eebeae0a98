//! Working memory that is kept from call to call, and outputs that several threads write.

use std::cell::Cell;

/// One cache line: keeps scratch aligned for whole vectors.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// Buffers not in use on this thread. Taken out while in use, so that work which the thread
    /// picks up meanwhile gets its own.
    static FREE: Cell<Vec<Vec<Line>>> = const { Cell::new(Vec::new()) };
}

/// Buffers kept on a thread beyond this many are freed.
const KEPT: usize = 4;

/// Calls `work` with `len` floats of scratch, aligned to 64 bytes, with unspecified contents.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let lines = len.div_ceil(16);
    let mut free = FREE.take();
    // The smallest that is large enough, else the largest, which grows.
    free.sort_unstable_by_key(Vec::len);
    let pick = free
        .iter()
        .position(|buffer| buffer.len() >= lines)
        .unwrap_or(free.len().saturating_sub(1));
    let mut buffer = if free.is_empty() {
        Vec::new()
    } else {
        free.remove(pick)
    };
    FREE.set(free);
    if buffer.len() < lines {
        buffer = vec![Line([0.0; 16]); lines];
    }
    // SAFETY: `Line` is sixteen floats without padding, and the buffer holds `lines` of them.
    let floats =
        unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<f32>(), lines * 16) };
    let result = work(&mut floats[..len]);
    let mut free = FREE.take();
    if free.len() < KEPT {
        free.push(buffer);
    }
    FREE.set(free);
    result
}

/// A mutable slice that tasks write at places they do not share.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the slice's owner is borrowed mutably for 'a; tasks keep to places of their own, which is
// what `at` makes its caller promise.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            borrow: std::marker::PhantomData,
        }
    }

    /// The place at `index`, for the elements from there on that no other task touches.
    pub(crate) fn at(self, index: usize) -> *mut f32 {
        assert!(
            index <= self.len,
            "place {index} lies outside {} values",
            self.len
        );
        self.start.wrapping_add(index)
    }

    /// `len` elements from `index` on.
    ///
    /// # Safety
    /// No other task touches these elements while the slice lives.
    pub(crate) unsafe fn slice(self, index: usize, len: usize) -> &'a mut [f32] {
        assert!(
            index + len <= self.len,
            "{len} values at {index} lie outside {} values",
            self.len
        );
        // SAFETY: inside the borrowed slice, and the caller vouches that nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(index), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_nests_and_is_aligned() {
        for round in 0..3 {
            with_scratch(100, |outer| {
                outer.fill(1.0);
                with_scratch(1000 * round + 50, |inner| {
                    assert_eq!(inner.as_ptr() as usize % 64, 0);
                    inner.fill(2.0);
                });
                assert_eq!(outer.len(), 100);
                assert!(outer.iter().all(|&x| x == 1.0));
            });
        }
    }

    #[test]
    #[should_panic(expected = "outside 3 values")]
    fn a_place_outside_is_refused() {
        Shared::new(&mut [0.0; 3]).at(4);
    }
}
