//! Generates the messages and clients from the protos, with `protoc`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use tonic_prost_build::Config;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../../../protos");
    let mut protos = Vec::new();
    for entry in fs::read_dir(root.join("jobledger/v1"))? {
        protos.push(entry?.path());
    }
    // For JSON: prost's messages do not know their own descriptors.
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("jobledger.binpb");
    let mut config = Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        .file_descriptor_set_path(descriptors)
        .compile_with_config(config, &protos, &[root.to_path_buf()])?;
    Ok(())
}
