//! A second reference device that behaves as a GPU does: operations run later on a thread of its own, in order; errors come
//! late; memory that is freed is overwritten in the order of the queue; a step can be recorded and replayed; there are no 64-bit
//! types. What runs here needs none of what a CPU is kind enough to give.

use crate::ReferenceBackend;
use crate::reference::Bytes;
use bitnet_core::backend::{Download, Graph, Op, TensorMut, TensorRef, unsupported};
use bitnet_core::{
    Backend, BitNetDType, BitNetError, Device, DeviceStorage, Layout, Result, TensorOpError, TensorStorage,
};
use std::any::Any;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What freed memory holds: as f32 a large negative number, as an index out of every range.
const FREED: u8 = 0xdd;

/// A new device with its own queue.
pub fn queue_device() -> Device {
    let (sender, jobs) = channel::<Message>();
    let error = Arc::new(Mutex::new(None));
    let found = error.clone();
    std::thread::spawn(move || {
        for message in jobs {
            match message {
                Message::Job(job) => {
                    if let Err(error) = job.run() {
                        lock(&found).get_or_insert(error);
                    }
                }
                Message::Read { memory, offset, len, reply } => {
                    drop(reply.send(lock(&memory)[offset..offset + len].to_vec()));
                }
                Message::Reached(reply) => drop(reply.send(())),
            }
        }
    });
    let queue = Arc::new(Queue { sender: Mutex::new(sender), recorded: Mutex::default() });
    Device::from_backend(Arc::new(QueueBackend { queue, error }))
}

#[derive(Debug)]
struct QueueBackend {
    queue: Arc<Queue>,
    /// The first error since the last call that waited.
    error: Arc<Mutex<Option<BitNetError>>>,
}

#[derive(Debug)]
struct Queue {
    sender: Mutex<Sender<Message>>,
    /// The jobs of the step that is being recorded.
    recorded: Mutex<Option<Vec<Job>>>,
}

enum Message {
    Job(Job),
    Read { memory: Memory, offset: usize, len: usize, reply: Sender<Vec<u8>> },
    Reached(Sender<()>),
}

type Memory = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Clone)]
enum Job {
    Run { op: Op, inputs: Vec<Operand>, outputs: Vec<Operand> },
    Write { memory: Memory, offset: usize, bytes: Vec<u8> },
    Free { memory: Memory },
}

#[derive(Debug, Clone)]
struct Operand {
    memory: Memory,
    layout: Layout,
    dtype: BitNetDType,
}

/// Storage of the device; dropping it frees the memory when the queue gets there.
#[derive(Debug)]
struct Storage {
    memory: Memory,
    bytes: usize,
    queue: Arc<Queue>,
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.queue.push(Job::Free { memory: self.memory.clone() });
    }
}

impl DeviceStorage for Storage {
    fn len_bytes(&self) -> usize {
        self.bytes
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Queue {
    fn push(&self, job: Job) {
        if let Some(recorded) = &mut *lock(&self.recorded) {
            recorded.push(job.clone());
        }
        self.send(Message::Job(job));
    }

    fn send(&self, message: Message) {
        // The thread ends with the program.
        drop(lock(&self.sender).send(message));
    }

    /// Sends a message that is answered, which a step that is recorded cannot do.
    fn ask<T>(&self, message: impl FnOnce(Sender<T>) -> Message) -> Result<Receiver<T>> {
        if lock(&self.recorded).is_some() {
            return Err(failed("a step that is recorded must not wait for the device"));
        }
        let (reply, answer) = channel();
        self.send(message(reply));
        Ok(answer)
    }
}

fn failed(message: &str) -> BitNetError {
    TensorOpError::Argument { op: "wait", message: message.into() }.into()
}

impl Job {
    fn run(self) -> Result<()> {
        match self {
            Job::Write { memory, offset, bytes } => lock(&memory)[offset..offset + bytes.len()].copy_from_slice(&bytes),
            Job::Free { memory } => lock(&memory).fill(FREED),
            Job::Run { op, inputs, outputs } => return run(&op, &inputs, &outputs),
        }
        Ok(())
    }
}

/// Runs an operation on the reference device, to which it lends the memory.
fn run(op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
    let mut lent: Vec<(Memory, TensorStorage)> = Vec::new();
    for operand in inputs.iter().filter(|x| outputs.iter().all(|out| !Arc::ptr_eq(&x.memory, &out.memory))) {
        if !lent.iter().any(|(memory, _)| Arc::ptr_eq(memory, &operand.memory)) {
            lent.push((operand.memory.clone(), Bytes::storage(std::mem::take(&mut lock(&operand.memory)))));
        }
    }
    let mut written: Vec<TensorStorage> =
        outputs.iter().map(|out| Bytes::storage(std::mem::take(&mut lock(&out.memory)))).collect();
    let result = {
        let find = |x: &Operand| lent.iter().find(|(memory, _)| Arc::ptr_eq(memory, &x.memory)).map(|(_, s)| s);
        let reference = |x| Some(TensorRef { storage: find(x)?, layout: x.layout, dtype: x.dtype });
        match inputs.iter().map(reference).collect::<Option<Vec<_>>>() {
            Some(inputs) => {
                let result =
                    |(storage, out): (_, &Operand)| TensorMut { storage, layout: out.layout, dtype: out.dtype };
                let mut outputs: Vec<_> = written.iter_mut().zip(outputs).map(result).collect();
                ReferenceBackend.run(op, &inputs, &mut outputs)
            }
            None => {
                let message = "a result has the memory of an operand".to_string();
                Err(TensorOpError::Argument { op: op.name(), message }.into())
            }
        }
    };
    let back = lent.into_iter().chain(outputs.iter().map(|out| out.memory.clone()).zip(written));
    back.for_each(|(memory, storage)| *lock(&memory) = Bytes::into_vec(storage));
    result
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Storage {
    /// An error unless these bytes are inside.
    fn check(&self, op: &'static str, offset: usize, len: usize) -> Result<()> {
        if offset.checked_add(len).is_some_and(|end| end <= self.bytes) {
            return Ok(());
        }
        let message = format!("bytes {offset}..{} of {}", offset.saturating_add(len), self.bytes);
        Err(TensorOpError::Argument { op, message }.into())
    }
}

/// The answer, or the first error since the last call that waited.
fn wait<T>(answer: &Receiver<T>, error: &Mutex<Option<BitNetError>>) -> Result<T> {
    let answer = answer.recv().map_err(|_| failed("the thread of the device has ended"))?;
    lock(error).take().map_or(Ok(answer), Err)
}

impl QueueBackend {
    fn storage<'a>(&self, op: &'static str, storage: &'a TensorStorage) -> Result<&'a Storage> {
        let found = match storage {
            TensorStorage::Device(device) => device.as_any().downcast_ref::<Storage>(),
            TensorStorage::Cpu(_) => None,
        };
        let elsewhere = || TensorOpError::Device { op, left: self.name(), right: "another device".into() }.into();
        found.filter(|storage| Arc::ptr_eq(&storage.queue, &self.queue)).ok_or_else(elsewhere)
    }

    fn operand(&self, op: &'static str, x: &TensorRef) -> Result<Operand> {
        if !self.has(x.dtype) {
            return Err(unsupported(self, op, x.dtype));
        }
        Ok(Operand { memory: self.storage(op, x.storage)?.memory.clone(), layout: x.layout, dtype: x.dtype })
    }
}

impl Backend for QueueBackend {
    fn name(&self) -> String {
        "queue".into()
    }

    fn has(&self, dtype: BitNetDType) -> bool {
        dtype.size() < 8 || dtype.is_packed()
    }

    fn as_dyn(&self) -> &dyn Backend {
        self
    }

    fn allocate(&self, bytes: usize) -> Result<TensorStorage> {
        let memory = Arc::new(Mutex::new(vec![FREED; bytes]));
        Ok(TensorStorage::Device(Box::new(Storage { memory, bytes, queue: self.queue.clone() })))
    }

    fn upload(&self, bytes: &[u8]) -> Result<TensorStorage> {
        let mut storage = self.allocate(bytes.len())?;
        self.write(&mut storage, 0, bytes)?;
        Ok(storage)
    }

    fn write(&self, target: &mut TensorStorage, offset: usize, bytes: &[u8]) -> Result<()> {
        let storage = self.storage("write", target)?;
        storage.check("write", offset, bytes.len())?;
        self.queue.push(Job::Write { memory: storage.memory.clone(), offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn download(&self, source: &TensorStorage, offset: usize, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(&self.start_download(source, offset, bytes.len())?.wait()?);
        Ok(())
    }

    fn start_download(&self, source: &TensorStorage, offset: usize, len: usize) -> Result<Download> {
        let storage = self.storage("download", source)?;
        storage.check("download", offset, len)?;
        let (memory, error) = (storage.memory.clone(), self.error.clone());
        let answer = self.queue.ask(|reply| Message::Read { memory, offset, len, reply })?;
        Ok(Download::new(move || wait(&answer, &error)))
    }

    fn synchronize(&self) -> Result<()> {
        wait(&self.queue.ask(Message::Reached)?, &self.error)
    }

    fn run(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        if !op.is_primitive() {
            return op.compose(self, inputs, outputs);
        }
        let inputs = inputs.iter().map(|x| self.operand(op.name(), x)).collect::<Result<_>>()?;
        let outputs = outputs.iter().map(|x| self.operand(op.name(), &x.as_ref())).collect::<Result<_>>()?;
        self.queue.push(Job::Run { op: *op, inputs, outputs });
        Ok(())
    }

    fn record(&self, step: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>> {
        *lock(&self.queue.recorded) = Some(Vec::new());
        let result = step();
        let jobs = lock(&self.queue.recorded).take().unwrap_or_default();
        result?;
        Ok(Some(Box::new(Recorded { jobs, queue: self.queue.clone() })))
    }
}

/// The jobs of a step, with their memory.
#[derive(Debug)]
struct Recorded {
    jobs: Vec<Job>,
    queue: Arc<Queue>,
}

impl Graph for Recorded {
    fn replay(&self) -> Result<()> {
        self.jobs.iter().for_each(|job| self.queue.push(job.clone()));
        Ok(())
    }
}
