//! A file put in another's place: whole or not at all, readable by its owner only, and on the disk.
//!
//! The file is never rewritten, so what must be writable is its directory. `store` and `deposit` call this.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::Process;

/// As long as Linux follows links itself.
const MAX_LINKS: usize = 40;

/// A kill between writing and renaming leaves a temporary file; one that old has no writer any more.
const LEFTOVER_AFTER: Duration = Duration::from_secs(60);

/// What stands against replacing a file.
#[derive(Debug, thiserror::Error)]
pub enum Irreplaceable {
    /// It ends in a slash or a dot.
    #[error("it names no file: add a file name")]
    NoFileName,
    /// As a single file that is mounted into a container is.
    #[error(
        "it is mounted by itself, so nothing can be put in its place: mount the directory it is in"
    )]
    Mounted,
    /// The system refuses.
    #[error("{error}; it is replaced by renaming, so {} must be a directory that may be written to", directory.display())]
    Refused {
        /// Where it is.
        directory: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The file that a path leads to, which need not exist; `None` where links go round in a circle.
pub(super) fn end_of_links(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = directory_of(&path).join(target),
            // No link, or nothing there yet.
            Err(_) => return Some(path),
        }
    }
    None
}

/// Where a file is.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Proves that a file, which need not exist, can be replaced. Changes nothing.
pub(super) fn prove(target: &Path) -> Result<(), Irreplaceable> {
    let name = target.file_name().unwrap_or_default().as_encoded_bytes();
    // `file_name` looks past what ends no file's name.
    let ends_in_name = target.as_os_str().as_encoded_bytes().ends_with(name);
    if name.is_empty() || !ends_in_name {
        return Err(Irreplaceable::NoFileName);
    }
    if is_mounted(target) {
        return Err(Irreplaceable::Mounted);
    }
    temporary_beside(target)
        .map(drop)
        .map_err(|error| refused(target, error))
}

/// Puts `contents` and a line feed in the file's place: whole or not at all, 0600, and on the disk before this returns.
pub(super) fn replace(target: &Path, contents: &[u8]) -> Result<(), Irreplaceable> {
    let replaced = || {
        let mut temporary = temporary_beside(target)?;
        temporary.write_all(contents)?;
        temporary.write_all(b"\n")?;
        temporary.as_file().sync_all()?;
        temporary.persist(target).map_err(|failed| failed.error)?;
        File::open(directory_of(target))?.sync_all()
    };
    replaced().map_err(|error| refused(target, error))
}

/// Removes what killed writers of this file left.
pub(super) fn remove_leftovers(target: &Path) {
    let prefix = leftover_prefix(target);
    let Ok(entries) = fs::read_dir(directory_of(target)) else {
        return;
    };
    for entry in entries.flatten() {
        let abandoned = entry.file_name().to_string_lossy().starts_with(&prefix)
            && entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|written| written.elapsed().is_ok_and(|age| age >= LEFTOVER_AFTER));
        if abandoned && let Err(error) = fs::remove_file(entry.path()) {
            tracing::debug!(
                path = %entry.path().display(),
                %error,
                "cannot remove what a killed writer left beside the file"
            );
        }
    }
}

/// Readable by its owner only from the first moment: that is how temporary files are made.
fn temporary_beside(target: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(&leftover_prefix(target))
        .tempfile_in(directory_of(target))
}

fn leftover_prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.tmp-")
}

/// The directory may well be writable, and the renaming still fails.
fn is_mounted(target: &Path) -> bool {
    let (Ok(target), Ok(mounts)) = (
        fs::canonicalize(target),
        Process::myself().and_then(|process| process.mountinfo()),
    ) else {
        return false;
    };
    mounts.into_iter().any(|mount| mount.mount_point == target)
}

fn refused(target: &Path, error: io::Error) -> Irreplaceable {
    Irreplaceable::Refused {
        directory: directory_of(target).to_owned(),
        error,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_what_can_be_renamed_to_is_proved() {
        let directory = TempDir::new().unwrap();
        let at = |end: &str| prove(&directory.path().join(end));
        assert!(at("file").is_ok());
        for end in ["file/", "file/.", "file//", "file/.."] {
            assert!(matches!(at(end), Err(Irreplaceable::NoFileName)), "{end}");
        }
        assert!(matches!(
            at("missing/file"),
            Err(Irreplaceable::Refused { .. })
        ));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_bare_name_is_of_a_file_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("in/file")), Path::new("in"));
    }

    #[test]
    fn a_file_that_is_mounted_by_itself_is_not_replaceable() {
        // Any mount will do: which of them are files differs from machine to machine.
        assert!(matches!(
            prove(Path::new("/proc")),
            Err(Irreplaceable::Mounted)
        ));
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_once_it_is_old() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.json");
        for (name, age) in [
            (".store.json.tmp-old", LEFTOVER_AFTER),
            (".store.json.tmp-new", Duration::ZERO),
            (".other.json.tmp-old", LEFTOVER_AFTER),
        ] {
            File::create(directory.path().join(name))
                .unwrap()
                .set_modified(SystemTime::now() - age)
                .unwrap();
        }
        remove_leftovers(&path);
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [".other.json.tmp-old", ".store.json.tmp-new"]);
    }
}
