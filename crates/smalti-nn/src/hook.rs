//! How a kernel on slices becomes a differentiable operation on burn's CPU backend.
//!
//! [`CpuOp`] is an operation with a hand-written forward and backward pass. [`call`] looks at the
//! tensors it is given: when all of them are `f32` tensors of the CPU backend (`flex`), tracked by
//! autodiff or not, it runs the kernel; otherwise it hands the tensors back, and the caller composes
//! the operation from burn's own.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::NodeId;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
    GradientCheckpointingStrategy,
};
use burn::tensor::{DType, Shape, Tensor, TensorData};

/// A tensor of the CPU backend, without gradient tracking.
pub(crate) type CpuTensor = FloatTensor<Flex>;
/// A tensor of the CPU backend that autodiff tracks.
type TrackedTensor = FloatTensor<Autodiff<Flex>>;

/// A differentiable operation of the CPU with `N` inputs and one output.
pub(crate) trait CpuOp<const N: usize>: Clone + Send + Sync + Debug + 'static {
    /// What forward keeps for backward besides the inputs: statistics, not activations.
    type Saved: Clone + Send + Debug + 'static;
    /// Whether the output is cheap to compute again under gradient checkpointing.
    const CHEAP: bool;

    fn forward(&self, inputs: &[CpuTensor; N]) -> (CpuTensor, Self::Saved);

    /// Gradients of the inputs whose `needed` flag is set.
    fn backward(
        &self,
        inputs: &[CpuTensor; N],
        saved: Self::Saved,
        grad: CpuTensor,
        needed: [bool; N],
    ) -> [Option<CpuTensor>; N];
}

/// Runs `op` on `inputs`, or returns them when one of them is not an `f32` tensor of the CPU.
pub(crate) fn call<const N: usize, const D: usize>(
    op: impl CpuOp<N>,
    inputs: [DispatchTensor; N],
) -> Result<Tensor<D>, [DispatchTensor; N]> {
    if !inputs.iter().all(is_cpu_f32) {
        return Err(inputs);
    }
    let context = inputs.iter().fold(DispatchAutodiffContext::Disabled, |c, t| c.merge(t.autodiff));
    let kind = match context {
        DispatchAutodiffContext::Disabled => {
            let inputs = inputs.map(|t| contiguous(untracked(t)));
            DispatchTensorKind::Flex(BackendTensor::Float(op.forward(&inputs).0))
        }
        DispatchAutodiffContext::Enabled(strategy) => {
            let inputs = inputs.map(tracked);
            let output = match strategy {
                GradientCheckpointingStrategy::Balanced => record::<N, BalancedCheckpointing>(op, inputs),
                _ => record::<N, NoCheckpointing>(op, inputs),
            };
            let output = DispatchTensorKind::Flex(BackendTensor::Autodiff(output));
            DispatchTensorKind::Autodiff(Box::new(output))
        }
    };
    Ok(Tensor::from_dispatch(DispatchTensor { kind, autodiff: context }))
}

/// A new tensor of the CPU that takes over `values`.
pub(crate) fn cpu_tensor(values: Vec<f32>, shape: impl Into<Shape>) -> CpuTensor {
    CpuTensor::from_data(TensorData::new(values, shape.into()))
}

/// The elements of a contiguous tensor.
pub(crate) fn elements(tensor: &CpuTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("inputs of an own operation are contiguous f32 tensors")
}

/// The dimensions of a tensor.
pub(crate) fn dims<const D: usize>(tensor: &CpuTensor) -> [usize; D] {
    std::array::from_fn(|i| tensor.layout().shape()[i])
}

/// Memory for `len` elements that a kernel writes completely.
///
/// `vec![0.0; len]` asks the allocator for zeroed pages, which costs nothing extra for large
/// tensors, and no element is ever uninitialised.
pub(crate) fn output(len: usize) -> Vec<f32> {
    vec![0.0; len]
}

fn is_cpu_f32(tensor: &DispatchTensor) -> bool {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(t)) => t.dtype() == DType::F32,
        DispatchTensorKind::Autodiff(inner) => matches!(
            &**inner,
            DispatchTensorKind::Flex(BackendTensor::Autodiff(t)) if t.primitive().dtype() == DType::F32
        ),
        // Which other variants exist depends on the backends that are compiled in.
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

fn untracked(tensor: DispatchTensor) -> CpuTensor {
    match tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(t)) => t,
        _ => unreachable!("a context without autodiff holds plain tensors only"),
    }
}

/// Lifts a plain tensor beside tracked ones to a leaf that needs no gradient.
fn tracked(tensor: DispatchTensor) -> TrackedTensor {
    match tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(t)) => TrackedTensor::new(t),
        DispatchTensorKind::Autodiff(inner) => match *inner {
            DispatchTensorKind::Flex(BackendTensor::Autodiff(t)) => t,
            _ => unreachable!("checked by is_cpu_f32"),
        },
        _ => unreachable!("checked by is_cpu_f32"),
    }
}

pub(crate) fn contiguous(tensor: CpuTensor) -> CpuTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// Registers `op` in the graph and runs its forward pass.
fn record<const N: usize, C: CheckpointStrategy>(
    op: impl CpuOp<N>,
    inputs: [TrackedTensor; N],
) -> TrackedTensor {
    let ids = inputs.each_ref().map(|t| t.id());
    let nodes = inputs.each_ref().map(|t| t.node());
    let step = Recorded(op.clone()).prepare::<C>(nodes);
    let step = if is_cheap(&op) {
        let again = Recompute { op: op.clone(), ids };
        step.memory_bound().retro_forward(again).parents(inputs.iter()).stateful()
    } else {
        step.compute_bound().stateful()
    };
    let values = |inputs: [TrackedTensor; N]| inputs.map(|t| contiguous(t.into_primitive()));
    match step {
        OpsKind::Tracked(mut step) => {
            inputs.iter().for_each(|t| {
                step.checkpoint(t);
            });
            let (output, saved) = op.forward(&values(inputs));
            step.finish((ids, saved), output)
        }
        OpsKind::UnTracked(step) => step.finish(op.forward(&values(inputs)).0),
    }
}

fn is_cheap<const N: usize, O: CpuOp<N>>(_: &O) -> bool {
    O::CHEAP
}

/// An operation as burn's graph knows it.
#[derive(Clone, Debug)]
struct Recorded<O>(O);

impl<const N: usize, O: CpuOp<N>> Backward<Flex, N> for Recorded<O> {
    // Node ids instead of tensors, so that gradient checkpointing may drop and recompute inputs.
    type State = ([NodeId; N], O::Saved);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let needed = ops.parents.each_ref().map(Option::is_some);
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let (ids, saved) = ops.state;
        let inputs = ids.map(|id| contiguous(checkpointer.retrieve_node_output::<CpuTensor>(id)));
        let outputs = self.0.backward(&inputs, saved, grad, needed);
        for (parent, grad) in ops.parents.into_iter().zip(outputs) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}

/// Computes a dropped output again during the backward pass.
#[derive(Debug)]
struct Recompute<O, const N: usize> {
    op: O,
    ids: [NodeId; N],
}

impl<const N: usize, O: CpuOp<N>> RetroForward for Recompute<O, N> {
    fn forward(&self, states: &mut BackwardStates, node: NodeId) {
        let inputs = self.ids.map(|id| contiguous(states.get_state::<CpuTensor>(&id)));
        states.save(node, self.op.forward(&inputs).0);
    }
}
