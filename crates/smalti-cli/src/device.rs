//! Which device does the work.

use std::str::FromStr;

use smalti::Device;

/// A device as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// The first accelerator this program was built for and finds, else the CPU.
    Auto,
    /// The processor.
    Cpu,
    /// A GPU through a named interface.
    Gpu {
        /// `cuda`, `rocm`, `vulkan` or `metal`.
        interface: &'static str,
        /// Which of several.
        index: usize,
    },
}

const INTERFACES: [&str; 4] = ["cuda", "rocm", "vulkan", "metal"];

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (
                name,
                index
                    .parse()
                    .map_err(|_| format!("{index:?} is not the number of a device"))?,
            ),
            None => (text, 0),
        };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => match INTERFACES.into_iter().find(|interface| *interface == name) {
                Some(interface) => Ok(Self::Gpu { interface, index }),
                None => Err(format!(
                    "expected auto, cpu, cuda:N, rocm:N, vulkan:N or metal, got {text:?}"
                )),
            },
        }
    }
}

impl DeviceChoice {
    /// The device, or why this program cannot use it.
    pub(crate) fn open(&self) -> anyhow::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::Auto => Ok(compiled()
                .into_iter()
                .find_map(|(_, open)| open(0))
                .unwrap_or_else(Device::flex)),
            Self::Gpu { interface, index } => {
                let Some((_, open)) = compiled().into_iter().find(|(name, _)| name == interface)
                else {
                    anyhow::bail!(
                        "this program was built without {interface}; build it with `cargo build --release --features {interface}`"
                    );
                };
                open(*index).ok_or_else(|| {
                    anyhow::anyhow!("no {interface} device with the number {index} was found")
                })
            }
        }
    }
}

/// Opens the device of a number, where there is one.
type Open = fn(usize) -> Option<Device>;

/// The interfaces this program was built for, the fastest first.
fn compiled() -> Vec<(&'static str, Open)> {
    #[allow(unused_mut, reason = "empty without a GPU feature")]
    let mut found: Vec<(&'static str, Open)> = Vec::new();
    #[cfg(feature = "cuda")]
    found.push(("cuda", |index| probe(move || Device::cuda(index))));
    #[cfg(feature = "rocm")]
    found.push(("rocm", |index| probe(move || Device::rocm(index))));
    #[cfg(feature = "vulkan")]
    found.push(("vulkan", |index| {
        probe(move || Device::vulkan(discrete(index)))
    }));
    #[cfg(feature = "metal")]
    found.push(("metal", |index| {
        probe(move || Device::metal(discrete(index)))
    }));
    found
}

/// A device that really answers. The engine panics where there is no driver, so the first touch is
/// guarded and its message kept from the user.
#[cfg(any(
    feature = "cuda",
    feature = "rocm",
    feature = "vulkan",
    feature = "metal"
))]
fn probe(open: impl Fn() -> Device + std::panic::UnwindSafe) -> Option<Device> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let device = std::panic::catch_unwind(move || {
        let device = open();
        device.sync().ok().map(|()| device)
    });
    std::panic::set_hook(hook);
    device.ok().flatten()
}

#[cfg(any(feature = "vulkan", feature = "metal"))]
fn discrete(index: usize) -> smalti::DeviceKind {
    match index {
        0 => smalti::DeviceKind::DefaultDevice,
        other => smalti::DeviceKind::DiscreteGpu(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written_in_the_help() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!(
            "cuda:2".parse(),
            Ok(DeviceChoice::Gpu {
                interface: "cuda",
                index: 2
            })
        );
        assert_eq!(
            "vulkan".parse(),
            Ok(DeviceChoice::Gpu {
                interface: "vulkan",
                index: 0
            })
        );
        assert!("tpu".parse::<DeviceChoice>().unwrap_err().contains("tpu"));
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
    }
}
