//! Execution contexts: device, random numbers, profiling.

use crate::{BitNetError, Device, Generator, Profile, Profiler, Result, auto_select_device};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

thread_local! {
    /// Without a destructor, so that other thread-locals' destructors find it; empty when no scope is open.
    static OPEN: RefCell<ManuallyDrop<Vec<ExecutionContext>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    static DEFAULT: RefCell<Option<ExecutionContext>> = const { RefCell::new(None) };
}

/// A device, the state of its random numbers, and whether operations are profiled. Clones are the same context.
///
/// There is no determinism option: CPU results do not depend on the number of threads or the distribution of work, and
/// random numbers are counter-based, so that a seed gives the same ones on every device.
///
/// ```
/// use bitnet_core::{BitNetDType, BitNetTensor, ExecutionContext};
/// let context = ExecutionContext::builder().threads(2).seed(7).profile(true).build()?;
/// let x = context.scope(|context| {
///     context.random(|random| BitNetTensor::randn(&[4, 4], BitNetDType::F32, context.device(), random))?.exp()
/// })?;
/// assert_eq!(context.take_profile().unwrap().calls("unary exp"), 1);
/// # Ok::<(), bitnet_core::BitNetError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ExecutionContext(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Device,
    generator: RefCell<Generator>,
    profiled: bool,
    profile: RefCell<Option<Profile>>,
}

/// Settings of an [`ExecutionContext`].
#[derive(Debug, Clone, Default)]
pub struct ExecutionContextBuilder {
    device: Option<Device>,
    threads: Option<usize>,
    seed: u64,
    profile: bool,
}

impl ExecutionContextBuilder {
    /// The device; by default the best one present.
    pub fn device(mut self, device: &Device) -> Self {
        self.device = Some(device.clone());
        self
    }

    /// A CPU device with this many threads, instead of a given device.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The seed of [`ExecutionContext::random`]; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether each [`scope`](ExecutionContext::scope) is profiled.
    pub fn profile(mut self, profile: bool) -> Self {
        self.profile = profile;
        self
    }

    /// The context; an error if both a device and threads are given, or zero threads.
    pub fn build(self) -> Result<ExecutionContext> {
        let wrong = |message: &str| Err(BitNetError::NoDevice(message.into()));
        let device = match (self.device, self.threads) {
            (Some(_), Some(_)) => {
                return wrong(
                    "a device has its own threads: give Device::cpu_with_threads(n) as the device, or threads",
                );
            }
            (_, Some(0)) => return wrong("a CPU needs at least one thread"),
            (Some(device), None) => device,
            (None, Some(threads)) => Device::cpu_with_threads(threads),
            (None, None) => auto_select_device(),
        };
        Ok(ExecutionContext::new(device, self.seed, self.profile))
    }
}

impl ExecutionContext {
    fn new(device: Device, seed: u64, profiled: bool) -> Self {
        let generator = RefCell::new(Generator::new(seed));
        Self(Rc::new(Inner { device, generator, profiled, profile: RefCell::new(None) }))
    }

    /// A builder with default settings.
    pub fn builder() -> ExecutionContextBuilder {
        ExecutionContextBuilder::default()
    }

    /// The context of the innermost [`scope`](Self::scope) on this thread; outside of any, a per-thread default with
    /// the best device and seed 0.
    pub fn current() -> Self {
        let open = OPEN.with_borrow(|open| open.last().cloned());
        let default = || Self::new(auto_select_device(), 0, false);
        open.or_else(|| DEFAULT.try_with(|context| context.borrow_mut().get_or_insert_with(default).clone()).ok())
            // While the thread ends nothing is kept for the next call.
            .unwrap_or_else(default)
    }

    /// Runs `f` with this as [`current`](Self::current); scopes can be nested.
    pub fn scope<R>(&self, f: impl FnOnce(&Self) -> R) -> R {
        /// Closes the scope on drop, also in a panic.
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                let _context = OPEN.with_borrow_mut(|open| {
                    let context = open.pop();
                    if open.is_empty() {
                        **open = Vec::new();
                    }
                    context
                });
            }
        }
        OPEN.with_borrow_mut(|open| open.push(self.clone()));
        let _guard = Guard;
        let profiler = self.0.profiled.then(Profiler::start);
        let result = f(self);
        if let Some(profiler) = profiler {
            *self.0.profile.borrow_mut() = Some(profiler.stop());
        }
        result
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Draws random numbers, which advances the context's generator.
    pub fn random<R>(&self, draw: impl FnOnce(&mut Generator) -> R) -> R {
        // Taken out, so that `draw` may use the context.
        let mut generator = self.0.generator.borrow().clone();
        let result = draw(&mut generator);
        *self.0.generator.borrow_mut() = generator;
        result
    }

    /// The profile of the last scope, if scopes are profiled; a second call returns `None`.
    pub fn take_profile(&self) -> Option<Profile> {
        self.0.profile.borrow_mut().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BitNetDType::F32, BitNetTensor};

    fn draw(context: &ExecutionContext) -> Vec<f32> {
        context.random(|random| BitNetTensor::rand(&[3], F32, context.device(), random)).unwrap().to_vec().unwrap()
    }

    #[test]
    fn scopes_stand_in_each_other_and_are_left_by_a_panic() {
        let build = |threads| ExecutionContext::builder().threads(threads).build().unwrap();
        let (a, b) = (build(1), build(2));
        a.scope(|_| {
            assert!(ExecutionContext::current().device() == a.device());
            b.scope(|_| assert!(ExecutionContext::current().device() == b.device()));
            let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| b.scope(|_| panic!("left"))));
            assert!(left.is_err());
            assert!(ExecutionContext::current().device() == a.device());
        });
        assert!(ExecutionContext::current().device() == &auto_select_device());
    }

    #[test]
    fn random_numbers_go_on_and_begin_again_with_the_seed() {
        let build = |seed| ExecutionContext::builder().seed(seed).build().unwrap();
        let (a, b) = (build(1), build(1));
        let (first, second) = (draw(&a), draw(&a));
        assert_ne!(first, second);
        assert_eq!([first, second], [draw(&b), draw(&b)]);
        assert_ne!(draw(&build(2)), draw(&build(1)));
    }

    #[test]
    fn a_profile_is_taken_of_each_scope() {
        let context = ExecutionContext::builder().profile(true).build().unwrap();
        let x = BitNetTensor::ones(&[2], F32, context.device()).unwrap();
        context.scope(|_| x.exp()).unwrap();
        assert_eq!(context.take_profile().unwrap().calls("unary exp"), 1);
        assert!(context.take_profile().is_none());
    }

    #[test]
    fn settings_that_contradict_are_errors() {
        let both = ExecutionContext::builder().device(&Device::cpu()).threads(1).build();
        assert!(both.unwrap_err().to_string().contains("its own threads"));
        assert!(ExecutionContext::builder().threads(0).build().is_err());
    }
}
