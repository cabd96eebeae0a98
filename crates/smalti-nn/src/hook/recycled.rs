//! Memory of large results, used again after they are dropped.
//!
//! A large buffer fresh from the system costs a page fault for every 4 KiB and is zeroed before a
//! kernel overwrites it, about a sixth of a small network's training step. A step makes the same
//! shapes as the one before, so the memory of a dropped result waits here for the next result of
//! its size. What waits is bounded by [`IDLE`]; the longest waiting goes first.

use std::collections::VecDeque;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{AllocationProperty, Bytes};
use burn_std::{AccessError, AccessPolicy, AllocationController};

/// Values below which the allocator is as fast.
const LARGE: usize = 16 << 10;

/// Values that may wait: one gigabyte of them.
const IDLE: usize = 1 << 28;

static WAITING: Mutex<Waiting> = Mutex::new(Waiting::new(IDLE));

/// Buffers that wait, the longest waiting first.
struct Waiting {
    buffers: VecDeque<Vec<f32>>,
    /// In all buffers together.
    values: usize,
    limit: usize,
}

impl Waiting {
    const fn new(limit: usize) -> Self {
        Self {
            buffers: VecDeque::new(),
            values: 0,
            limit,
        }
    }

    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        // The last one given back is the likeliest to be in the cache still.
        let place = self
            .buffers
            .iter()
            .rposition(|buffer| buffer.len() == len)?;
        self.values -= len;
        self.buffers.remove(place)
    }

    /// Adds a buffer and returns those that there is no more room for.
    fn give(&mut self, buffer: Vec<f32>) -> Vec<Vec<f32>> {
        self.values += buffer.len();
        self.buffers.push_back(buffer);
        let mut old = Vec::new();
        while self.values > self.limit {
            let Some(buffer) = self.buffers.pop_front() else {
                break;
            };
            self.values -= buffer.len();
            old.push(buffer);
        }
        old
    }
}

fn waiting() -> MutexGuard<'static, Waiting> {
    // Nothing that holds the lock can leave it half changed.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `len` values of no particular content.
pub(super) fn take(len: usize) -> Vec<f32> {
    let waiting = if len >= LARGE {
        waiting().take(len)
    } else {
        None
    };
    waiting.unwrap_or_else(|| vec![0.0; len])
}

/// `values` as the bytes of a tensor, whose memory comes back here when the tensor is dropped.
pub(super) fn bytes(values: Vec<f32>) -> Bytes {
    let len = size_of_val(values.as_slice());
    if values.len() < LARGE || values.capacity() != values.len() {
        return Bytes::from_elems(values);
    }
    // SAFETY: all bytes of a vector of `f32` are initialized, and `len` is their number.
    unsafe { Bytes::from_controller(Box::new(Recycled(values)), len) }
}

/// Memory that is given back when dropped; its capacity is its length.
struct Recycled(Vec<f32>);

impl Drop for Recycled {
    fn drop(&mut self) {
        // Empty after `try_detach`.
        if !self.0.is_empty() {
            let old = waiting().give(std::mem::take(&mut self.0));
            // Freed without the lock, which the statement above has let go: it takes long.
            drop(old);
        }
    }
}

impl AllocationController for Recycled {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Native
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let len = size_of_val(self.0.as_slice());
        // SAFETY: the vector's memory, borrowed as the vector is; any initialized bytes, which alone
        // the caller may write, are `f32`s.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let len = size_of_val(self.0.as_slice());
        // SAFETY: the vector's memory, borrowed as the vector is.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), len) })
    }

    fn capacity(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    fn try_detach(&mut self) -> Option<NonNull<u8>> {
        // A vector whose capacity is its length: what `capacity` and `alloc_align` describe.
        let mut values = ManuallyDrop::new(std::mem::take(&mut self.0));
        NonNull::new(values.as_mut_ptr().cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length that no other test uses.
    const LEN: usize = LARGE + 12_345;

    #[test]
    fn memory_returns_when_the_last_tensor_is_dropped() {
        let values = take(LEN);
        let place = values.as_ptr();
        let kept = bytes(values);
        let other = take(LEN);
        assert_ne!(other.as_ptr(), place, "still in use");
        drop(kept);
        let again = take(LEN);
        assert_eq!(again.as_ptr(), place);
        // Whoever takes the vector out owns it, without a copy.
        let out = bytes(again).try_into_vec::<f32>().expect("bytes of f32");
        assert_eq!((out.as_ptr(), out.len()), (place, LEN));
        let other = take(LEN);
        assert_ne!(other.as_ptr(), place, "given away");
    }

    #[test]
    fn bytes_are_the_values_and_can_be_written() {
        let mut data = bytes(vec![1.5; LEN]);
        assert_eq!(data.len(), 4 * LEN);
        data[..4].copy_from_slice(&2.5f32.to_ne_bytes());
        assert_eq!(data[4..8], 1.5f32.to_ne_bytes());
        let copy = data.clone();
        drop(data);
        let values = copy.try_into_vec::<f32>().expect("bytes of f32");
        assert_eq!(values[..2], [2.5, 1.5]);
        assert_eq!(values.len(), LEN);
    }

    #[test]
    fn the_longest_waiting_makes_room() {
        let mut waiting = Waiting::new(10);
        assert!(waiting.give(vec![1.0; 4]).is_empty());
        assert!(waiting.give(vec![2.0; 5]).is_empty());
        assert_eq!(waiting.give(vec![3.0; 4]), [[1.0; 4]]);
        assert_eq!(waiting.take(5), Some(vec![2.0; 5]));
        assert_eq!(waiting.take(5), None);
        assert_eq!(waiting.give(vec![4.0; 11]), [vec![3.0; 4], vec![4.0; 11]]);
        assert_eq!(waiting.values, 0);
    }
}
