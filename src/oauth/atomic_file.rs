//! Atomic file replacement: a temporary file, fsync, rename. `store` and `destination` call this.
//!
//! A file is never rewritten in place, so its directory must be writable, not the file itself. The new file is readable
//! by its owner only. A symbolic link stays; the file that it leads to is replaced.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::NamedTempFile;

/// A process that is killed between writing and renaming leaves a temporary file. One of this age is not in use any more.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);

/// Why a file cannot be read or replaced, and what to do. It does not contain the file's contents.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FileError(pub(super) String);

/// Checks that a file, which need not exist, can be replaced. Changes nothing.
pub(super) fn check_writable(path: &Path) -> Result<(), FileError> {
    let error = |reason| FileError(format!("cannot write {}: {reason}", path.display()));
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    // `file_name` ignores a slash or a dot at the end.
    if name.is_empty() || !path.as_os_str().as_encoded_bytes().ends_with(name) {
        return Err(error("not a file path: add a file name"));
    }
    let target = resolve(path).map_err(|cause| write_error(path, &cause))?;
    if target.exists() && !target.is_file() {
        return Err(error("not a regular file: name another file"));
    }
    if is_mount_point(&target) {
        return Err(error(
            "it is a bind-mounted file; mount its directory instead",
        ));
    }
    temporary_file_for(&target)
        .map(drop)
        .map_err(|cause| write_error(path, &cause))
}

/// Replaces the file as a whole or not at all. The new contents are on the disk when this returns.
pub(super) fn write(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let written = || {
        let target = resolve(path)?;
        let mut file = temporary_file_for(&target)?;
        file.write_all(contents)?;
        file.as_file().sync_all()?;
        file.persist(&target)?;
        File::open(directory_of(&target))?.sync_all()
    };
    written().map_err(|cause| write_error(path, &cause))
}

/// Removes temporary files that killed processes left next to the file: each contains a refresh token.
pub(super) fn remove_leftovers(path: &Path) {
    let Ok(target) = resolve(path) else { return };
    let prefix = temporary_prefix(&target);
    let Ok(entries) = fs::read_dir(directory_of(&target)) else {
        return;
    };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= LEFTOVER_AGE));
        if is_old && entry.file_name().to_string_lossy().starts_with(&prefix) {
            // A failure does no harm: the next start tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Temporary files are readable by their owner only from the start.
fn temporary_file_for(target: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(&temporary_prefix(target))
        .tempfile_in(directory_of(target))
}

fn temporary_prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.tmp-")
}

/// Returns the absolute path of the file that `path` leads to. The file need not exist; its directory must.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    match fs::read_link(path) {
        Ok(target) => resolve(&directory_of(path).join(target)),
        // There is no file yet.
        Err(_) => {
            let directory = fs::canonicalize(directory_of(path))?;
            Ok(directory.join(path.file_name().unwrap_or_default()))
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Returns whether something is mounted at this very path, as when a container mounts a single file. Its directory may be
/// writable, but renaming to it fails. Where the list of mounts is missing, only the write itself shows the failure.
fn is_mount_point(target: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field of each line is the mount point.
    let mut mount_points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    mount_points.any(|mount_point| Path::new(mount_point) == target)
}

fn write_error(path: &Path, cause: &io::Error) -> FileError {
    FileError(format!(
        "cannot write {}: {cause}; files are replaced by renaming, so {} must be a writable directory",
        path.display(),
        directory_of(path).display()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{os::unix::fs::symlink, time::SystemTime};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_path_that_cannot_be_replaced_is_refused_and_nothing_is_left_behind() {
        let directory = TempDir::new().unwrap();
        let check = |end: &str| check_writable(&directory.path().join(end));
        check("file").unwrap();
        symlink("circle", directory.path().join("circle")).unwrap();
        for (end, reason) in [
            ("file/", "not a file path"),
            ("file/.", "not a file path"),
            ("file/..", "not a file path"),
            ("../..", "not a file path"),
            ("missing/file", "must be a writable directory"),
            ("circle", "must be a writable directory"),
            ("/dev/null", "not a regular file"),
        ] {
            let error = check(end).unwrap_err().to_string();
            assert!(
                error.contains(end) && error.contains(reason),
                "{end}: {error}"
            );
        }
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "the link");
    }

    #[test]
    fn a_path_without_a_directory_is_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("in/file")), Path::new("in"));
    }

    #[test]
    fn mount_points_are_recognized() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self")));
    }

    #[test]
    fn old_temporary_files_of_the_same_file_are_removed() {
        let directory = TempDir::new().unwrap();
        for (name, age) in [
            (".store.json.tmp-old", LEFTOVER_AGE),
            (".store.json.tmp-new", Duration::ZERO),
            (".other.json.tmp-old", LEFTOVER_AGE),
        ] {
            File::create(directory.path().join(name))
                .unwrap()
                .set_modified(SystemTime::now() - age)
                .unwrap();
        }
        remove_leftovers(&directory.path().join("store.json"));
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [".other.json.tmp-old", ".store.json.tmp-new"]);
    }
}
