//! Tables of vectors, looked up by id.
//!
//! `y[…] = weight[id]`, `weight [count, width]`, in PyTorch's layout.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use crate::Init;

/// A learned table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[count, width]`
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Vectors normal with mean 0 and the given deviation.
    pub fn normal(count: usize, width: usize, deviation: f32, init: &mut Init) -> Self {
        Self {
            weight: init.normal([count, width], deviation),
        }
    }

    /// Ids `[rows, columns]`, each below `count`, to `[rows, columns, width]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        embedding(self.weight.val(), ids)
    }
}

/// The rows of `table [count, width]` named by `ids [rows, columns]`.
pub fn embedding(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let [_, width] = table.dims();
    let [rows, columns] = ids.dims();
    table
        .select(0, ids.reshape([rows * columns]))
        .reshape([rows, columns, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn looks_rows_up_and_adds_gradients_of_repeated_ids() {
        let device = Device::flex().autodiff();
        let table = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        let table = table.require_grad();
        let ids = Tensor::<2, Int>::from_data([[2, 0], [2, 2]], &device);
        let rows = embedding(table.clone(), ids);
        assert_eq!(rows.dims(), [2, 2, 2]);
        let values = rows.clone().try_into_vec_as::<f32>().unwrap();
        assert_eq!(values, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0, 5.0, 6.0]);
        let gradient = table.grad(&rows.sum().backward()).unwrap();
        assert_eq!(
            gradient.try_into_vec_as::<f32>().unwrap(),
            [1.0, 1.0, 0.0, 0.0, 3.0, 3.0]
        );
    }
}
