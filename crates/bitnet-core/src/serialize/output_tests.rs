//! What stands at the path before a file is written.

use super::*;

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-output-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let folder = Folder::new("whole");
    let path = folder.0.join("x");
    fs::write(&path, "old").unwrap();
    let mut dropped = AtomicFile::create(&path).unwrap();
    dropped.put(b"half of").unwrap();
    drop(dropped);
    assert_eq!((fs::read(&path).unwrap(), folder.names()), (b"old".to_vec(), vec!["x".to_owned()]));
    assert_eq!(AtomicFile::write_bytes(&path, b"new one").unwrap(), 7);
    assert_eq!((fs::read(&path).unwrap(), folder.names()), (b"new one".to_vec(), vec!["x".to_owned()]));
    let error = AtomicFile::create(&folder.0).unwrap_err().to_string();
    assert!(error.contains("folder"), "{error}");
}

/// In a process of its own: nothing can be written after it.
#[test]
fn abandoning_removes_unfinished_files_and_keeps_finished_ones() {
    const INNER: &str = "BITNET_TEST_ABANDON";
    if let Some(folder) = std::env::var_os(INNER) {
        let at = |name: &str| Path::new(&folder).join(name);
        AtomicFile::write_bytes(&at("finished"), b"kept").unwrap();
        let mut files = ["a", "b"].map(|name| AtomicFile::create(&at(name)).unwrap());
        files.iter_mut().for_each(|file| file.put(b"half").unwrap());
        drop(AtomicFile::create(&at("dropped")).unwrap());
        let names = || fs::read_dir(&folder).unwrap().count();
        assert_eq!((names(), unfinished().len()), (3, 2));
        AtomicFile::abandon_all();
        assert_eq!(names(), 1);
        std::process::exit(0);
    }
    let folder = Folder::new("abandon");
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serialize::output::tests::abandoning_removes_unfinished_files_and_keeps_finished_ones"])
        .env(INNER, &folder.0)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    assert_eq!(folder.names(), ["finished"]);
}

#[test]
fn a_name_as_long_as_the_system_allows() {
    let folder = Folder::new("long");
    let path = folder.0.join("x".repeat(255));
    AtomicFile::write_bytes(&path, b"y").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"y");
}

#[cfg(unix)]
#[test]
fn permissions_of_a_replaced_file_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("mode");
    let path = folder.0.join("x");
    for mode in [0o600, 0o640, 0o755] {
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        AtomicFile::write_bytes(&path, b"new").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_stays_and_its_target_is_written() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("link");
    fs::create_dir(folder.0.join("deep")).unwrap();
    let (target, middle, link) = (folder.0.join("deep/target"), folder.0.join("deep/middle"), folder.0.join("link"));
    symlink("target", &middle).unwrap();
    symlink("deep/middle", &link).unwrap();
    // First a link to nothing, then to a file.
    for text in ["first", "second"] {
        AtomicFile::write_bytes(&link, text.as_bytes()).unwrap();
        assert!(link.is_symlink() && middle.is_symlink() && !target.is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), text);
    }
    let circle = folder.0.join("circle");
    symlink("circle", &circle).unwrap();
    assert!(AtomicFile::create(&circle).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn devices_and_pipes_are_written_through() {
    use std::io::Read;
    use std::os::unix::fs::FileTypeExt;
    let null = Path::new("/dev/null");
    assert_eq!(AtomicFile::write_bytes(null, b"gone").unwrap(), 4);
    assert!(fs::metadata(null).unwrap().file_type().is_char_device());
    let full = AtomicFile::write_bytes(Path::new("/dev/full"), b"x").unwrap_err();
    assert!(matches!(full, WriteError::Full { .. }), "{full}");

    let folder = Folder::new("pipe");
    let pipe = folder.0.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut bytes = Vec::new();
            File::open(pipe).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        }
    });
    AtomicFile::write_bytes(&pipe, b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(folder.names(), ["pipe"]);
}
