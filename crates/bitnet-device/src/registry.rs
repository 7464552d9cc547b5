//! Kinds of devices by name. A crate that implements a device offers a [`DeviceKind`]; whoever puts a program together registers
//! it once, before it is asked for.

use crate::{Backend, BitNetError, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A kind of devices, numbered from 0.
#[derive(Debug, Clone, Copy)]
pub struct DeviceKind {
    /// Its name, as in `cuda:0`.
    pub name: &'static str,
    /// Opens device `index`; an error that says why there is none, or no such.
    pub open: fn(index: usize) -> Result<Arc<dyn Backend>>,
}

struct Registry {
    kinds: Vec<DeviceKind>,
    open: Vec<(&'static str, usize, Arc<dyn Backend>)>,
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: Mutex<Registry> = Mutex::new(Registry { kinds: Vec::new(), open: Vec::new() });
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes devices of this kind available under its name; the last of equal names counts.
pub fn register(kind: DeviceKind) {
    registry().kinds.push(kind);
}

/// The names of the registered kinds.
pub fn registered() -> Vec<&'static str> {
    registry().kinds.iter().map(|kind| kind.name).collect()
}

/// Device `index` of the kind `name`: opened at the first call, the same one at every other.
pub fn open(name: &str, index: usize) -> Result<Arc<dyn Backend>> {
    if let Some((.., device)) = registry().open.iter().find(|(kind, i, _)| *kind == name && *i == index) {
        return Ok(device.clone());
    }
    let kind = registry().kinds.iter().rev().find(|kind| kind.name == name).copied();
    let kind = kind.ok_or_else(|| {
        BitNetError::NoDevice(format!("device {name}:{index} is not compiled into this build: use the cpu"))
    })?;
    // Without the lock: a device may look at others while it opens.
    let device = (kind.open)(index)?;
    let mut registry = registry();
    if let Some((.., first)) = registry.open.iter().find(|(kind, i, _)| *kind == name && *i == index) {
        return Ok(first.clone());
    }
    registry.open.push((kind.name, index, device.clone()));
    Ok(device)
}
