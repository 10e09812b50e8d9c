//! A program that runs in an empty root. Its ELF headers show that it needs no loader and no library.

use anyhow::{Context, bail};
use object::Endianness;
use object::elf::{DT_NEEDED, EM_AARCH64, EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use oci_spec::image::Arch;

const NEXT_STEP: &str = "build it with RUSTFLAGS=-Ctarget-feature=+crt-static for a linux-gnu target";

/// A statically linked program for Linux: it needs nothing but the kernel.
#[derive(Clone, Debug)]
pub struct StaticProgram {
    bytes: Vec<u8>,
    architecture: Arch,
}

impl StaticProgram {
    /// Checks the content of a program's file.
    ///
    /// # Errors
    /// If it is not a 64 bit ELF file of a known architecture, or needs a dynamic loader or a shared library.
    pub fn new(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let data = bytes.as_slice();
        let header = FileHeader64::<Endianness>::parse(data).context("read the program's ELF header")?;
        let endian = header.endian()?;
        let architecture = match header.e_machine(endian) {
            EM_X86_64 => Arch::Amd64,
            EM_AARCH64 => Arch::ARM64,
            other => bail!("the program is for the machine {other} of ELF; images are made for x86-64 and AArch64"),
        };
        for segment in header.program_headers(endian, data)? {
            if segment.p_type(endian) == PT_INTERP {
                bail!("the program needs a dynamic loader, and an image has none: {NEXT_STEP}");
            }
            // A static position-independent program has such entries, too, but none that names a library.
            for entry in segment.dynamic(endian, data)?.unwrap_or_default() {
                if entry.d_tag(endian) == DT_NEEDED {
                    bail!("the program needs shared libraries, and an image has none: {NEXT_STEP}");
                }
            }
        }
        Ok(Self { bytes, architecture })
    }

    /// The file's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Architecture of the program.
    #[must_use]
    pub fn architecture(&self) -> &Arch {
        &self.architecture
    }
}
