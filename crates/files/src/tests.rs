use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

fn words(error: &ReadError) -> String {
    error.to_string()
}

#[test]
fn a_file_is_read_up_to_its_limit_and_not_a_byte_further() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, vec![7; 200_000]).unwrap();
    assert_eq!(read(&path, 200_000).unwrap(), vec![7; 200_000]);
    assert_eq!(words(&read(&path, 199_999).unwrap_err()), "expected at most 199999 bytes, got 200000");
    fs::write(&path, b"").unwrap();
    assert_eq!(read(&path, 0).unwrap(), b"");
}

#[test]
fn a_stream_without_an_end_is_given_up_at_the_limit() {
    let error = read_within(std::io::repeat(1), 1_000_000).unwrap_err();
    assert_eq!(words(&error), "expected at most 1000000 bytes, got more than 1000000");
    assert_eq!(read_within(std::io::repeat(5).take(65_536), 65_536).unwrap().len(), 65_536);
    assert!(matches!(read_within(std::io::repeat(5).take(65_537), 65_536), Err(ReadError::TooBig { .. })));
}

#[test]
fn what_is_no_file_is_named_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let refusal = |path: &Path| words(&read(path, 100).unwrap_err());
    assert_eq!(refusal(folder.path()), "expected a file, got a directory");
    assert_eq!(refusal(Path::new("/dev/zero")), "expected a file, got a character device");
    assert_eq!(refusal(&fifo), "expected a file, got a FIFO; a pipe is read as /dev/stdin or /dev/fd/N");
    let link = folder.path().join("link");
    symlink(&fifo, &link).unwrap();
    assert!(refusal(&link).starts_with("expected a file, got a FIFO"));
}

#[test]
fn a_pipe_is_read_where_it_is_asked_for() {
    let mut writer = Command::new("printf").arg("hello").stdout(Stdio::piped()).spawn().unwrap();
    let pipe = writer.stdout.take().unwrap();
    let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
    assert_eq!(read(path.as_ref(), 5).unwrap(), b"hello");
    writer.wait().unwrap();
    assert!(matches!(open_regular(path.as_ref()), Err(ReadError::Kind("a FIFO"))));
}

#[test]
fn a_link_is_followed_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("elsewhere/target"), folder.path().join("link"));
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    symlink("elsewhere/target", &link).unwrap();
    for contents in ["made", "replaced"] {
        replace(&link, contents.as_bytes()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), contents);
    }
    symlink("round", folder.path().join("round")).unwrap();
    assert!(replace(&folder.path().join("round"), b"").is_err());
    let left = fs::read_dir(folder.path().join("elsewhere")).unwrap().count();
    assert_eq!(left, 1, "nothing is left lying about");
}

#[test]
fn a_new_file_is_its_owners_and_one_that_was_there_keeps_its_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    replace(&path, b"1").unwrap();
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    replace(&path, b"2").unwrap();
    assert_eq!((mode(), fs::read(&path).unwrap()), (0o644, b"2".to_vec()));
}

#[test]
fn what_is_not_finished_leaves_what_was_there_and_what_is_no_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "old").unwrap();
    let mut half = Replacement::new(&path).unwrap();
    half.write_all(b"half").unwrap();
    drop(half);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = replace(folder.path(), b"").unwrap_err().to_string();
    assert_eq!(error, "expected a file to replace, got a directory");
}
