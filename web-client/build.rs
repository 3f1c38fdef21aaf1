//! Makes sure that the folder of the built client exists, so that the crate compiles on a machine without Node.
//! It never builds the client: that is the work of `npm run build`.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    fs::create_dir_all(Path::new(&root).join("dist"))?;
    println!("cargo:rerun-if-changed=build.rs");
    // A release carries the files in itself; a debug build reads them from disk at each request.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rerun-if-changed=dist");
    }
    Ok(())
}
