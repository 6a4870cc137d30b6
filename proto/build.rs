//! Compiles every `proto/*.proto` without protoc: `protox` parses, `tonic-prost-build` generates.

use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    // The folder too: a file that is added later must be seen.
    println!("cargo::rerun-if-changed=proto");
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [root])?;
    let package = descriptors
        .file
        .iter()
        .find(|file| file.package() == "holdfast.admin.v1");
    let admin = package.ok_or("there is no package holdfast.admin.v1")?;
    let services = admin.service.iter();
    let methods: Vec<&str> = services
        .flat_map(|service| service.method.iter().map(|method| method.name()))
        .collect();
    let messages = admin
        .message_type
        .iter()
        .filter(|message| message.name() == "ChangeRequest");
    let changes: Vec<&str> = messages
        .flat_map(|message| message.field.iter().map(|field| field.name()))
        .collect();
    let names = format!(
        "/// Every method of the admin service.\npub const ADMIN_METHODS: &[&str] = &{methods:?};\n\
         /// Every kind of `ChangeRequest`.\npub const ADMIN_CHANGES: &[&str] = &{changes:?};\n"
    );
    let out = std::env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    std::fs::write(Path::new(&out).join("admin_names.rs"), names)?;
    tonic_prost_build::configure()
        // Payloads are slices of the receive buffer, not copies.
        .bytes(".")
        .include_file("all.rs")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
