//! The change of ownership of a guest: three words after the stream.
//!
//! 1. The destination says that it has all of the guest and could run it: `SEAREADY`.
//! 2. The source gives the guest away and no longer runs it: `SEAGOES\0`.
//! 3. The destination says that it has taken it: `SEATAKEN`.
//!
//! Each is 8 bytes, followed by the checksum of the stream. If the connection breaks before the second word,
//! the guest goes on at the source; between the second and the third, the source cannot know, and does not
//! run it.

use std::io::{self, Read, Write};

use thiserror::Error;

use super::{Checksum, HASH_SIZE, Received};

type Word = [u8; 8];
const READY: Word = *b"SEAREADY";
const GOES: Word = *b"SEAGOES\0";
const TAKEN: Word = *b"SEATAKEN";

/// The reason why a guest did not change hands.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The source still owns the guest and can go on with it; the destination must discard it.
    #[error("the guest stays where it was: {0}")]
    Stays(#[source] io::Error),
    /// The source has given the guest away, and does not know whether the destination has it. It must not run
    /// it unless somebody has made sure that the destination does not.
    #[error(
        "the guest was given away, and the other side did not say that it has it: {0}; look there before anything else"
    )]
    Unknown(#[source] io::Error),
}

/// Gives the guest away; called at the source after [`send`](super::send). When it returns, the guest belongs
/// to the destination.
///
/// The connection's timeouts bound the wait.
///
/// # Errors
/// [`HandoverError`], which says who owns the guest.
pub fn hand_over(mut link: impl Read + Write, checksum: &Checksum) -> Result<(), HandoverError> {
    hear(&mut link, READY, checksum).map_err(HandoverError::Stays)?;
    say(&mut link, GOES, checksum).map_err(HandoverError::Unknown)?;
    hear(&mut link, TAKEN, checksum).map_err(HandoverError::Unknown)
}

impl Received {
    /// Takes the guest; called at the destination once everything is ready to run it. When it returns, the
    /// guest belongs to the destination, which runs it.
    ///
    /// # Errors
    /// [`HandoverError::Stays`]: do not run the guest here.
    pub fn take_over(&self, mut link: impl Read + Write) -> Result<(), HandoverError> {
        say(&mut link, READY, &self.checksum).map_err(HandoverError::Stays)?;
        hear(&mut link, GOES, &self.checksum).map_err(HandoverError::Stays)?;
        // The source has stopped for good: the guest is here even if the source does not get this word.
        let _ = say(&mut link, TAKEN, &self.checksum);
        Ok(())
    }
}

fn say(link: &mut impl Write, word: Word, checksum: &Checksum) -> io::Result<()> {
    let mut bytes = word.to_vec();
    bytes.extend_from_slice(&checksum.0);
    link.write_all(&bytes)?;
    link.flush()
}

fn hear(link: &mut impl Read, word: Word, checksum: &Checksum) -> io::Result<()> {
    let (mut heard, mut of) = (Word::default(), [0; HASH_SIZE]);
    link.read_exact(&mut heard)?;
    link.read_exact(&mut of)?;
    if heard == word && of == checksum.0 {
        return Ok(());
    }
    let expected = String::from_utf8_lossy(&word).into_owned();
    let message = format!("expected {expected} of {checksum:?}, got something else from the other side");
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
