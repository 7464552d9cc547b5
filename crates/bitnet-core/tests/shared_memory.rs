//! A tensor in shared memory, read by another process.
#![cfg(not(miri))]

use bitnet_core::*;
use std::process::Command;
use std::sync::Arc;

const READER: &str = "BITNET_TEST_SHARED_MEMORY";

/// In the second process: reads the tensor in place.
#[test]
fn reader() {
    let Ok(name) = std::env::var(READER) else { return };
    let file = Arc::new(SharedMemory::open(&name).unwrap());
    let x = BitNetTensor::from_mapped(&file, 64..64 + 4000, &[10, 100], BitNetDType::F32, &Device::cpu()).unwrap();
    assert_eq!(HybridMemoryPool::global().get_metrics().allocations, 0, "no copy was made");
    assert_eq!(x.narrow(0, 7, 1).unwrap().to_vec::<f32>().unwrap()[99], 799.0);
    // Writing to a tensor in shared memory copies it to private memory.
    let mut own = x.clone();
    own.as_mut().unwrap().storage.cpu_mut("test", BitNetDType::F32).unwrap().bytes_mut().unwrap().fill(0);
    assert_eq!(x.to_vec::<f32>().unwrap()[5], 5.0);
    println!("read by process {}", std::process::id());
}

#[test]
fn another_process_reads_a_tensor_without_a_copy() {
    let name = format!("test-{}", std::process::id());
    let mut memory = SharedMemory::create(&name, 64 + 4000).unwrap();
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    memory[64..].copy_from_slice(bytemuck::cast_slice(&values));
    assert!(SharedMemory::open(&name).is_err(), "not before it is published");
    let published = memory.publish().unwrap();
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reader", "--nocapture"])
        .env(READER, &name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("read by process") && !text.contains(&format!("process {}\n", std::process::id())), "{text}");
    assert!(SharedMemory::create(&name, 1).unwrap().publish().is_err(), "the name is taken");
    drop(published);
    assert!(SharedMemory::open(&name).is_err(), "the name went");
}

#[test]
fn names_and_sizes_are_checked() {
    for name in ["", "a/b", "..\0", "ä", &"x".repeat(201)] {
        assert!(SharedMemory::create(name, 10).is_err(), "{name:?}");
    }
    let name = format!("size-{}", std::process::id());
    assert!(SharedMemory::create(&name, usize::MAX).is_err());
    assert!(SharedMemory::create(&name, 1 << 50).is_err(), "more than there is");
    assert_eq!(SharedMemory::create(&name, 0).unwrap().len(), 1);
}

/// A file in the place of published memory; gone when dropped.
#[cfg(unix)]
struct Planted(std::path::PathBuf);

#[cfg(unix)]
impl Planted {
    fn path(name: &str) -> std::path::PathBuf {
        let folder = std::path::Path::new("/dev/shm");
        let folder = if folder.is_dir() { folder.to_path_buf() } else { std::env::temp_dir() };
        folder.join(format!("bitnet-{name}.shared"))
    }
}

#[cfg(unix)]
impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(unix)]
#[test]
fn published_memory_is_a_file_of_this_user_that_nobody_may_write() {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let name = format!("mode-{}", std::process::id());
    let path = Planted::path(&name);
    let hidden = path.with_extension(format!("{}.part", std::process::id()));
    let memory = SharedMemory::create(&name, 100).unwrap();
    assert_eq!(fs::metadata(&hidden).unwrap().mode() & 0o777, 0o600, "while it is filled");
    let published = memory.publish().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o400, "once it is published");
    assert_eq!(SharedMemory::open(&name).unwrap().len(), 100);
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    assert!(SharedMemory::open(&name).unwrap_err().to_string().contains("has the mode 444"));
    drop(published);

    // What others leave under the name is not taken for shared memory.
    let planted = Planted(path.clone());
    fs::write(&path, [1; 100]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(SharedMemory::open(&name).unwrap_err().to_string().contains("was not published"));
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert!(SharedMemory::open(&name).is_ok());
    // Only root can give a file away; elsewhere this part says nothing.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        assert!(SharedMemory::open(&name).unwrap_err().to_string().contains("belongs to user 12345"));
    }
    drop(planted);
    let planted = Planted(path.clone());
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(SharedMemory::open(&name).is_err(), "a link to elsewhere");
    drop(planted);
    // A FIFO: opening it must not wait for somebody to write.
    let _planted = Planted(path.clone());
    if std::process::Command::new("mkfifo").args(["-m", "400"]).arg(&path).status().is_ok_and(|s| s.success()) {
        assert!(SharedMemory::open(&name).unwrap_err().to_string().contains("not a plain file"));
    }
}
