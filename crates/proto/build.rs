//! Compiles the `.proto` files in pure Rust: building Ringfort needs no protoc.

use std::{env, error::Error, fs, path::Path};

const FILES: [&str; 5] = [
    "ringfort/v1/kv.proto",
    "ringfort/v1/cluster.proto",
    "ringfort/v1/membership.proto",
    "ringfort/v1/peer.proto",
    "original/kv.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;

    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(Path::new(&out_dir).join("ringfort.bin"), compiler.encode_file_descriptor_set())?;
    let services = tonic_prost_build::configure().bytes(".").btree_map(".").codec_path("crate::codec::SmallBuffers");
    let services = services.extern_path(".proto.GossipRequest", "crate::gossip_request::GossipRequest");
    services.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
