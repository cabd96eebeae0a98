//! The code maps that a generator writes: their shape and their vocabularies.

use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use smalti_quantize::Codes;

use super::conditions::InvalidInput;

/// Numbers of codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CodebookSize {
    /// The same at every depth.
    Same(usize),
    /// One number for each depth.
    PerDepth(Vec<usize>),
}

impl CodebookSize {
    /// The sizes as the shortest of the two forms.
    pub fn of(sizes: &[usize]) -> Self {
        match sizes.iter().all(|size| *size == sizes[0]) {
            true if !sizes.is_empty() => Self::Same(sizes[0]),
            _ => Self::PerDepth(sizes.to_vec()),
        }
    }

    /// One for each depth.
    pub fn each(&self, depth: usize) -> Vec<usize> {
        match self {
            Self::Same(size) => vec![*size; depth],
            Self::PerDepth(sizes) => sizes.clone(),
        }
    }

    /// Everything that is wrong with it for so many codes at a position.
    pub(super) fn problems(&self, depth: usize) -> Vec<String> {
        let (sizes, mut problems) = (self.each(depth), Vec::new());
        if sizes.len() != depth {
            let got = sizes.len();
            problems.push(format!(
                "codebook_size: expected {depth} sizes (the depth), got {got}"
            ));
        }
        if sizes.contains(&0) {
            problems.push("codebook_size: expected at least 1 code, got 0".into());
        }
        problems
    }
}

/// Shape and vocabularies of code maps `[depth, height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeLayout {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Number of codes to choose from, for each code at a position.
    pub codebook_sizes: Vec<usize>,
}

impl CodeLayout {
    /// Codes at one position.
    pub fn depth(&self) -> usize {
        self.codebook_sizes.len()
    }

    /// Positions of a map.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Codes of a map.
    pub fn codes(&self) -> usize {
        self.depth() * self.positions()
    }

    /// Rows of a table with a row for every code of every depth, and one for every depth's mask behind
    /// its codes.
    pub(super) fn table_rows(&self) -> usize {
        self.codebook_sizes.iter().map(|size| size + 1).sum()
    }

    /// The rows of such a table for maps one behind the other, depth by depth; the mask is the id behind
    /// a depth's last code.
    pub(super) fn table_ids(&self, maps: &[u32]) -> Vec<u32> {
        let starts: Vec<u32> = self
            .codebook_sizes
            .iter()
            .scan(0, |next, &size| {
                let start = *next;
                *next += size as u32 + 1;
                Some(start)
            })
            .collect();
        let maps = maps.chunks_exact(self.positions()).enumerate();
        maps.flat_map(|(i, map)| {
            let start = starts[i % starts.len()];
            map.iter().map(move |id| start + id)
        })
        .collect()
    }

    /// The depth of a code by its place in the map of a sample.
    pub(super) fn depth_of(&self, token: usize) -> usize {
        token / self.positions()
    }

    /// Checks that codes have this shape and are below the codebooks' sizes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, codes: &Codes) -> Result<(), InvalidInput> {
        let [batch, ..] = codes.dims();
        let expected = [batch, self.depth(), self.height, self.width];
        if codes.dims() != expected {
            let got = codes.dims();
            return Err(InvalidInput(format!(
                "codes: expected the shape {expected:?}, got {got:?}"
            )));
        }
        for (i, map) in codes.values().chunks_exact(self.positions()).enumerate() {
            let depth = i % self.depth();
            let size = self.codebook_sizes[depth];
            if let Some(wrong) = map.iter().find(|&&id| id as usize >= size) {
                let text =
                    format!("codes: expected ids below {size} at depth {depth}, got {wrong}");
                return Err(InvalidInput(text));
            }
        }
        Ok(())
    }

    /// Codes as `[batch, positions, depth]` on a model's device.
    ///
    /// # Panics
    /// When the codes have another shape.
    pub(super) fn by_position(&self, codes: &Codes, device: &Device) -> Tensor<3, Int> {
        let [batch, ..] = codes.dims();
        let (depth, positions) = (self.depth(), self.positions());
        let shape = [batch, depth, self.height, self.width];
        assert_eq!(codes.dims(), shape, "codes: [batch, depth, height, width]");
        let ids = codes
            .tensor()
            .reshape([batch, depth, positions])
            .swap_dims(1, 2);
        if device.is_autodiff() {
            Tensor::from_inner(ids)
        } else {
            ids
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_nn::nearest::id_values;

    fn layout() -> CodeLayout {
        CodeLayout {
            height: 2,
            width: 3,
            codebook_sizes: vec![12, 5, 7],
        }
    }

    #[test]
    fn codes_of_another_shape_or_range_are_refused() {
        let device = Device::flex();
        let check = |value, shape: [usize; 4]| {
            let values = vec![value; shape.iter().product()];
            layout().check(&Codes::from_values(&values, shape, &device))
        };
        assert_eq!(check(4, [2, 3, 2, 3]), Ok(()));
        let message = check(0, [2, 2, 2, 3]).unwrap_err().to_string();
        assert!(
            message.contains("expected the shape [2, 3, 2, 3], got [2, 2, 2, 3]"),
            "{message}"
        );
        let message = check(5, [2, 3, 2, 3]).unwrap_err().to_string();
        assert!(
            message.contains("expected ids below 5 at depth 1, got 5"),
            "{message}"
        );
    }

    #[test]
    fn positions_come_before_depths() {
        let device = Device::flex();
        let values: Vec<u32> = (0..18).collect();
        let codes = Codes::from_values(&values, [1, 3, 2, 3], &device);
        let ids = id_values(layout().by_position(&codes, &device));
        assert_eq!(ids[..6], [0, 6, 12, 1, 7, 13]);
    }

    #[test]
    fn a_common_table_has_a_mask_behind_the_codes_of_each_depth() {
        let layout = layout();
        assert_eq!(layout.table_rows(), 13 + 6 + 8);
        let one: Vec<u32> = [[0; 6], [4; 6], [7; 6]].concat();
        let ids = layout.table_ids(&one.repeat(2));
        assert_eq!(ids[..18], [[0; 6], [17; 6], [26; 6]].concat());
        assert_eq!(ids[18..], ids[..18]);
        assert_eq!([0, 5, 6, 17].map(|t| layout.depth_of(t)), [0, 0, 1, 2]);
    }

    #[test]
    fn sizes_are_written_as_one_where_they_are_one() {
        assert_eq!(CodebookSize::of(&[8, 8]), CodebookSize::Same(8));
        assert_eq!(
            CodebookSize::of(&[8, 4]),
            CodebookSize::PerDepth(vec![8, 4])
        );
        assert_eq!(CodebookSize::of(&[8, 8]).each(2), [8, 8]);
    }
}
