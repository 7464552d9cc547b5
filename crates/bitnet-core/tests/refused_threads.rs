//! A system that refuses threads, as one with a limit on processes: everything still computes, on fewer.
#![cfg(all(feature = "parallel", not(miri)))]

use bitnet_core::*;
use std::process::Command;

const INNER: &str = "BITNET_TEST_REFUSED";

#[test]
fn threads_that_the_system_refuses_are_done_without() {
    if std::env::var_os(INNER).is_some() {
        let device = Device::cpu_with_threads(4);
        let x = BitNetTensor::eye(300, BitNetDType::F32, &device).unwrap();
        let product = x.matmul(&x).unwrap();
        assert_eq!(product.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        #[cfg(feature = "linalg")]
        assert!(x.svdvals().unwrap().to_vec::<f32>().unwrap().iter().all(|value| (value - 1.).abs() < 1e-5));
        return;
    }
    // No system gives a thread a stack of an exabyte. The test's own thread would need one, so it runs on the main one.
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--test-threads", "1", "--nocapture"])
        .envs([(INNER, "1"), ("RUST_MIN_STACK", "1152921504606846976")])
        .output()
        .unwrap();
    let (said, noted) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && said.contains("1 passed"), "{said}{noted}");
    assert!(noted.contains("note: the system refuses more threads") && noted.contains("1 of 4"), "{noted}");
}
