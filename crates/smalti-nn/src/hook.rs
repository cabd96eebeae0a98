//! How a kernel on slices becomes a differentiable operation on burn's CPU backend.
//!
//! [`CpuOp`] is an operation with a hand-written forward and backward pass. [`call`] looks at the
//! tensors it is given: when all of them are `f32` tensors of the CPU backend (`flex`), tracked by
//! autodiff or not, it runs the kernel; otherwise it hands the tensors back, and the caller composes
//! the operation from burn's own.

#[cfg(test)]
pub(crate) mod agreement;
mod recycled;

use std::fmt::Debug;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
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
    let context = inputs
        .iter()
        .fold(DispatchAutodiffContext::Disabled, |c, t| {
            c.merge(t.autodiff)
        });
    let DispatchAutodiffContext::Enabled(strategy) = context else {
        return call_plain(inputs, |inputs| op.forward(inputs).0);
    };
    let inputs = inputs.map(tracked);
    let output = match strategy {
        GradientCheckpointingStrategy::Balanced => record::<N, BalancedCheckpointing>(op, inputs),
        _ => record::<N, NoCheckpointing>(op, inputs),
    };
    let output = DispatchTensorKind::Flex(BackendTensor::Autodiff(output));
    let kind = DispatchTensorKind::Autodiff(Box::new(output));
    Ok(Tensor::from_dispatch(DispatchTensor {
        kind,
        autodiff: context,
    }))
}

/// Runs an operation without gradient, or returns its inputs when one of them is tracked or not an
/// `f32` tensor of the CPU.
pub(crate) fn call_plain<const N: usize, const D: usize>(
    inputs: [DispatchTensor; N],
    run: impl FnOnce(&[CpuTensor; N]) -> CpuTensor,
) -> Result<Tensor<D>, [DispatchTensor; N]> {
    let plain = |t: &DispatchTensor| matches!(t.autodiff, DispatchAutodiffContext::Disabled);
    if !inputs
        .iter()
        .all(|tensor| plain(tensor) && is_cpu_f32(tensor))
    {
        return Err(inputs);
    }
    let output = run(&inputs.map(|tensor| contiguous(untracked(tensor))));
    let kind = DispatchTensorKind::Flex(BackendTensor::Float(output));
    let autodiff = DispatchAutodiffContext::Disabled;
    Ok(Tensor::from_dispatch(DispatchTensor { kind, autodiff }))
}

/// Whether [`call`] would run an operation of this tensor alone.
pub(crate) fn is_on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    is_cpu_f32(&tensor.clone().into_dispatch())
}

/// A new tensor of the CPU that takes over `values`.
pub(crate) fn cpu_tensor(values: Vec<f32>, shape: impl Into<Shape>) -> CpuTensor {
    CpuTensor::from_data(TensorData::from_bytes(
        recycled::bytes(values),
        shape.into(),
        DType::F32,
    ))
}

/// The elements of a contiguous tensor.
pub(crate) fn elements(tensor: &CpuTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("inputs of an own operation are contiguous f32 tensors")
}

/// The dimensions of a tensor.
pub(crate) fn dims<const D: usize>(tensor: &CpuTensor) -> [usize; D] {
    std::array::from_fn(|i| tensor.layout().shape()[i])
}

/// Memory for `len` elements that a kernel writes completely: what is there before is arbitrary.
pub(crate) fn output(len: usize) -> Vec<f32> {
    let mut values = recycled::take(len);
    if cfg!(test) {
        // So that a test sees what a kernel left out.
        values.fill(f32::NAN);
    }
    values
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

/// The memory of a tensor that nobody else sees, to be written over; `None` when it is shared or a
/// part of something larger.
pub(crate) fn writable(tensor: &mut CpuTensor) -> Option<&mut [f32]> {
    let layout = tensor.layout();
    let whole = layout.is_contiguous()
        && layout.start_offset() == 0
        && tensor.bytes().len() == layout.num_elements() * size_of::<f32>();
    if whole {
        tensor.try_storage_mut::<f32>()
    } else {
        None
    }
}

/// `tensor` after `change`, written over where nobody else sees it.
pub(crate) fn changed(mut tensor: CpuTensor, change: impl FnOnce(&mut [f32])) -> CpuTensor {
    if let Some(values) = writable(&mut tensor) {
        change(values);
        return tensor;
    }
    let mut values = elements(&tensor).to_vec();
    change(&mut values);
    cpu_tensor(values, tensor.layout().shape().clone())
}

fn contiguous(tensor: CpuTensor) -> CpuTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
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
        let again = Recompute {
            op: op.clone(),
            ids,
        };
        step.memory_bound()
            .retro_forward(again)
            .parents(inputs.iter())
            .stateful()
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

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
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
        let inputs = self
            .ids
            .map(|id| contiguous(states.get_state::<CpuTensor>(&id)));
        states.save(node, self.op.forward(&inputs).0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::tensor::{Device, FloatDType};

    use super::agreement::{Inputs, assert_agree};
    use super::*;

    /// `a · b`, element by element, counting its forward passes.
    #[derive(Clone, Copy, Debug)]
    struct Times<const CHEAP: bool>(&'static AtomicUsize);

    impl<const CHEAP: bool> CpuOp<2> for Times<CHEAP> {
        type Saved = ();
        const CHEAP: bool = CHEAP;

        fn forward(&self, [a, b]: &[CpuTensor; 2]) -> (CpuTensor, ()) {
            self.0.fetch_add(1, Ordering::Relaxed);
            let values = elements(a)
                .iter()
                .zip(elements(b))
                .map(|(a, b)| a * b)
                .collect();
            (cpu_tensor(values, dims::<2>(a)), ())
        }

        fn backward(
            &self,
            [a, b]: &[CpuTensor; 2],
            _: (),
            mut grad: CpuTensor,
            [of_a, of_b]: [bool; 2],
        ) -> [Option<CpuTensor>; 2] {
            let grad_b = of_b.then(|| {
                let values = elements(a)
                    .iter()
                    .zip(elements(&grad))
                    .map(|(a, g)| a * g)
                    .collect();
                cpu_tensor(values, dims::<2>(a))
            });
            let grad_a = of_a.then(|| match writable(&mut grad) {
                Some(values) => {
                    values
                        .iter_mut()
                        .zip(elements(b))
                        .for_each(|(g, b)| *g *= b);
                    grad
                }
                None => {
                    let values = elements(&grad).iter().zip(elements(b)).map(|(g, b)| g * b);
                    cpu_tensor(values.collect(), dims::<2>(b))
                }
            });
            [grad_a, grad_b]
        }
    }

    fn times<const CHEAP: bool>(
        calls: &'static AtomicUsize,
        a: Tensor<2>,
        b: Tensor<2>,
    ) -> Option<Tensor<2>> {
        call(
            Times::<CHEAP>(calls),
            [a.into_dispatch(), b.into_dispatch()],
        )
        .ok()
    }

    #[test]
    fn agrees_with_the_engine_also_where_gradients_are_written_over() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let composed = |i: &Inputs| i.get::<2>(0) * i.get::<2>(1);
        let cheap = |i: &Inputs| times::<true>(&CALLS, i.get(0), i.get(1)).unwrap();
        let dear = |i: &Inputs| times::<false>(&CALLS, i.get(0), i.get(1)).unwrap();
        assert_agree(&[&[3, 4], &[3, 4]], 1e-6, cheap, composed);
        assert_agree(&[&[3, 4], &[3, 4]], 1e-6, dear, composed);
        let own = |i: &Inputs| times::<true>(&CALLS, i.get(0), i.get(0)).unwrap();
        assert_agree(&[&[3, 4]], 1e-6, own, |i: &Inputs| i.get::<2>(0).square());
    }

    #[test]
    fn only_cheap_outputs_are_computed_again() {
        static CHEAP: AtomicUsize = AtomicUsize::new(0);
        static DEAR: AtomicUsize = AtomicUsize::new(0);
        let device = Device::flex().autodiff().gradient_checkpointing();
        let leaf = Tensor::<2>::ones([2, 2], &device).require_grad();
        let cheap = times::<true>(&CHEAP, leaf.clone(), leaf.clone()).unwrap();
        let dear = times::<false>(&DEAR, leaf.clone(), cheap).unwrap();
        let gradients = dear.square().sum().backward();
        let gradient = leaf
            .grad(&gradients)
            .unwrap()
            .try_into_vec_as::<f32>()
            .unwrap();
        assert_eq!(gradient, [6.0; 4], "the slope of x^6 at 1");
        assert_eq!(
            (CHEAP.load(Ordering::Relaxed), DEAR.load(Ordering::Relaxed)),
            (2, 1)
        );
    }

    #[test]
    fn plain_tensors_may_stand_beside_tracked_ones() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let plain = Tensor::<2>::from_data([[2.0, 3.0]], &Device::flex());
        let tracked = Tensor::<2>::ones([1, 2], &Device::flex().autodiff()).require_grad();
        let product = times::<true>(&CALLS, plain, tracked.clone()).unwrap();
        let gradient = tracked.grad(&product.sum().backward()).unwrap();
        assert_eq!(gradient.try_into_vec_as::<f32>().unwrap(), [2.0, 3.0]);
    }

    #[test]
    fn other_number_types_are_handed_back() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let a = Tensor::<2>::ones([1, 2], &Device::flex());
        let b = a.clone().cast(FloatDType::F64);
        assert!(times::<true>(&CALLS, a, b).is_none());
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
    }
}
