//! The generated code is committed, so that nobody needs a Protobuf compiler to build. This test generates it again
//! from `proto/*.proto` and fails when the two differ; `STARLING_WRITE_GENERATED=1 cargo test -p starling-proto`
//! writes it.

use std::{fs, path::Path};

#[test]
fn generated_code_agrees_with_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/generated");
    let fresh = tempfile::tempdir().expect("a temporary directory");

    let files = ["client.proto", "api.proto", "control.proto"];
    let descriptors = protox::compile(files, [root.join("proto")]).expect("the .proto files compile");
    // `bytes` fields become reference-counted slices of the input; maps are sorted, so that encoding is repeatable.
    let mut messages = tonic_prost_build::Config::new();
    messages.bytes(["."]).btree_map(["."]);
    tonic_prost_build::configure()
        .out_dir(fresh.path())
        .compile_fds_with_config(descriptors, messages)
        .expect("code is generated");

    let write = std::env::var_os("STARLING_WRITE_GENERATED").is_some();
    let mut names: Vec<_> =
        fs::read_dir(fresh.path()).expect("readable").map(|e| e.expect("readable").file_name()).collect();
    names.sort();
    assert_eq!(names.len(), files.len(), "one file per package: {names:?}");
    for name in names {
        let text = fs::read_to_string(fresh.path().join(&name)).expect("readable");
        let target = committed.join(&name);
        if write {
            fs::write(&target, &text).expect("writable");
        }
        let present = fs::read_to_string(&target).unwrap_or_default();
        assert!(present == text, "{} is not what proto/*.proto generate: see the head of this file", target.display());
    }
}
