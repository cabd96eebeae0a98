//! How every generator that goes through a map position by position fills it.
//!
//! A body reads what stands before a position and gives a context, from which the codes of the position
//! are drawn; then it reads those. What is different from one generator to another stands behind
//! [`Walk`]; the order, what was given beforehand and telling the caller stand here.

use std::ops::{ControlFlow, Range};

use burn::tensor::{Device, Tensor};
use smalti_quantize::Codes;

use super::drawing::{Batch, Maps, Rows, write_maps};
use super::request::{Capability, GenerateError, GenerationRequest, Progress};

/// What writes the maps of one batch. Tensors have the batch's rows, in as many copies as it needs.
pub(super) trait Walk {
    /// The rows of a copy.
    fn rows(&self) -> Rows;

    /// What stands before the codes, `[rows, at least 1, width]`.
    fn start(&self) -> Tensor<3>;

    /// What the body reads of codes that are there, `[rows, at least 1 for each place, width]`.
    fn given(&self, maps: &Maps, places: Range<usize>) -> Tensor<3>;

    /// What the body still has to read of a position whose codes were just drawn.
    fn written(&self, maps: &Maps, position: usize) -> Tensor<3> {
        self.given(maps, position..position + 1)
    }

    /// Lets the body read on: its output at the last of these places, `[rows, 1, width]`.
    fn read(&mut self, input: Tensor<3>) -> Tensor<3>;

    /// Draws the codes of one position, given the body's output before it.
    fn write(
        &mut self,
        context: Tensor<3>,
        maps: &mut Maps,
        position: usize,
    ) -> Result<(), GenerateError>;
}

/// Checks a request and fills its maps, with a writer for the samples of each batch.
pub(super) fn walk_maps<W: Walk>(
    request: &GenerationRequest,
    capability: &Capability,
    device: &Device,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    writer: impl Fn(Range<usize>) -> W,
) -> Result<Codes, GenerateError> {
    request.check(capability)?;
    write_maps(request, &capability.layout, device, watch, |batch| {
        walk(&mut writer(batch.samples.clone()), batch)
    })
}

/// Fills the maps of a batch.
fn walk(writer: &mut impl Walk, batch: Batch) -> Result<(), GenerateError> {
    let Batch {
        mut maps,
        start,
        tick,
        ..
    } = batch;
    let mut context = read_before(writer, &maps, start);
    for position in start..maps.positions {
        writer.write(context.clone(), &mut maps, position)?;
        tick()?;
        if position + 1 < maps.positions {
            let written = writer.written(&maps, position);
            context = writer.read(written);
        }
    }
    Ok(())
}

/// Lets the body read everything before a position: its context, `[rows, 1, width]`.
pub(super) fn read_before(writer: &mut impl Walk, maps: &Maps, position: usize) -> Tensor<3> {
    let start = writer.start();
    if writer.rows().by_steps {
        // One place after the other, also where their vectors are made: few rows round as few rows.
        let mut context = read_by_steps(writer, start);
        for place in 0..position {
            let given = writer.given(maps, place..place + 1);
            context = read_by_steps(writer, given);
        }
        return context;
    }
    let input = match position {
        0 => start,
        _ => Tensor::cat(vec![start, writer.given(maps, 0..position)], 1),
    };
    writer.read(input)
}

fn read_by_steps(writer: &mut impl Walk, input: Tensor<3>) -> Tensor<3> {
    let [_, length, _] = input.dims();
    let contexts = (0..length).map(|i| writer.read(input.clone().narrow(1, i, 1)));
    contexts
        .last()
        .expect("there is at least one place to read")
}
