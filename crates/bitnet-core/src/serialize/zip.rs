//! The subset of zip that npz needs: stored or deflated entries, zip64, no encryption, one volume.
//!
//! The central directory at the end is authoritative; every offset and length in it is checked against the file, and
//! entries must not overlap. Source: PKWARE's APPNOTE 6.3.10.

use std::collections::HashSet;
use std::ops::Range;

/// Compression of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored = 0,
    Deflated = 8,
}

/// A file in the archive.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) method: Method,
    pub(super) crc: u32,
    /// Its bytes in the archive, possibly compressed.
    pub(super) range: Range<usize>,
    /// Bytes when inflated.
    pub(super) size: usize,
}

const END: u32 = 0x0605_4b50;
const END64_LOCATOR: u32 = 0x0706_4b50;
const END64: u32 = 0x0606_4b50;
const DIRECTORY: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// The 32-bit placeholder of a number in a zip64 field.
const IN_ZIP64: u64 = u32::MAX as u64;
/// Deflate expands a byte to at most 1,032.
const MAX_RATIO: usize = 1032;

/// The entries of an archive in the order of its directory, or what is wrong with it.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Entry>, String> {
    let (count, directory) = end(file)?;
    let mut at = directory.start;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    let mut taken = Vec::new();
    while at < directory.end {
        let (entry, whole, len) = entry(file, &directory, at)?;
        at += len;
        if !names.insert(entry.name.clone()) {
            return Err(format!("entry {} occurs twice", super::one_line(&entry.name)));
        }
        taken.push(whole);
        entries.push(entry);
    }
    if at != directory.end || entries.len() as u64 != count {
        return Err(format!("its directory has {} entries for {count} announced", entries.len()));
    }
    taken.sort_by_key(|range: &Range<usize>| range.start);
    match taken.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(_) => Err("two entries share bytes".into()),
        None => Ok(entries),
    }
}

/// Little-endian fields from byte `at` on.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn at(file: &'a [u8], at: usize, signature: u32) -> Result<Self, String> {
        let mut fields = Self(file.get(at..).unwrap_or_default());
        if fields.u32()? == signature as u64 { Ok(fields) } else { Err("a record is not where it should be".into()) }
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or("a record ends early")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn number(&mut self, width: usize) -> Result<u64, String> {
        let bytes = self.bytes(width)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn u16(&mut self) -> Result<u64, String> {
        self.number(2)
    }

    fn u32(&mut self) -> Result<u64, String> {
        self.number(4)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.number(8)
    }
}

/// The number of entries and the bytes of the directory.
fn end(file: &[u8]) -> Result<(u64, Range<usize>), String> {
    // Up to 65,535 bytes of comment follow the record.
    let last = file.len().checked_sub(22).ok_or("it is shorter than an empty archive")?;
    let ends_file = |&at: &usize| {
        file[at..].starts_with(&END.to_le_bytes())
            && usize::from(u16::from_le_bytes([file[at + 20], file[at + 21]])) == file.len() - at - 22
    };
    let at = (last.saturating_sub(65_535)..=last).rev().find(ends_file).ok_or("it has no directory at its end")?;
    let mut f = Fields::at(file, at, END)?;
    let (disk, directory_disk, here) = (f.u16()?, f.u16()?, f.u16()?);
    let (mut count, mut size, mut offset, mut limit) = (f.u16()?, f.u32()?, f.u32()?, at);
    let mut one_volume = disk == 0 && directory_disk == 0 && here == count;
    if count == 0xffff || size == IN_ZIP64 || offset == IN_ZIP64 {
        let locator = at.checked_sub(20).ok_or("its zip64 record is missing")?;
        let mut f = Fields::at(file, locator, END64_LOCATOR)?;
        f.u32()?;
        let place = f.u64()?;
        limit = usize::try_from(place).ok().filter(|&p| p < locator).ok_or("its zip64 record lies outside")?;
        let mut f = Fields::at(file, limit, END64)?;
        // Length of the record, and two versions.
        f.bytes(12)?;
        let (disk, directory_disk, here) = (f.u32()?, f.u32()?, f.u64()?);
        (count, size, offset) = (f.u64()?, f.u64()?, f.u64()?);
        one_volume = disk == 0 && directory_disk == 0 && here == count;
    }
    if !one_volume {
        return Err("it is a part of an archive of several files".into());
    }
    let range = offset.checked_add(size).filter(|&end| end <= limit as u64).map(|end| offset as usize..end as usize);
    range.map(|range| (count, range)).ok_or_else(|| "its directory lies outside".into())
}

/// The entry of the directory at `at`, all of its bytes in the archive, and the length of its record.
fn entry(file: &[u8], directory: &Range<usize>, at: usize) -> Result<(Entry, Range<usize>, usize), String> {
    let record = &file[at..directory.end];
    let mut f = Fields::at(record, 0, DIRECTORY)?;
    f.bytes(4)?;
    let (flags, method) = (f.u16()?, f.u16()?);
    f.bytes(4)?;
    let crc = f.u32()? as u32;
    let (mut packed, mut size) = (f.u32()?, f.u32()?);
    let (name, extra, comment) = (f.u16()? as usize, f.u16()? as usize, f.u16()? as usize);
    let disk = f.u16()?;
    f.bytes(6)?;
    let mut offset = f.u32()?;
    let name = f.bytes(name)?;
    let mut extra = Fields(f.bytes(extra)?);
    f.bytes(comment)?;
    let len = record.len() - f.0.len();

    let text = std::str::from_utf8(name).ok().filter(|text| text.is_ascii() || flags & 0x800 != 0);
    let text = text.ok_or("the name of an entry is not UTF-8")?;
    let wrong = |problem: &str| Err(format!("entry {} {problem}", super::one_line(text)));
    while let (Ok(id), Ok(len)) = (extra.u16(), extra.u16()) {
        let mut field = Fields(extra.bytes(len as usize)?);
        if id == 1 {
            for value in [&mut size, &mut packed, &mut offset].into_iter().filter(|v| **v == IN_ZIP64) {
                *value = field.u64()?;
            }
        }
    }
    if flags & 1 != 0 || disk != 0 {
        return wrong("is encrypted or in another volume");
    }
    let method = match method {
        0 => Method::Stored,
        8 => Method::Deflated,
        _ => return wrong(&format!("is packed by method {method}; store or deflate it")),
    };

    // The local header repeats the name, and has its own extra field.
    let Ok(offset) = usize::try_from(offset) else { return wrong("lies outside") };
    let mut local = Fields::at(&file[..directory.start], offset, LOCAL)?;
    local.bytes(22)?;
    let (local_name, local_extra) = (local.u16()? as usize, local.u16()? as usize);
    if local.bytes(local_name)? != name {
        return wrong("has another name before its data");
    }
    local.bytes(local_extra)?;
    let start = directory.start - local.0.len();
    let (Ok(packed), Ok(size)) = (usize::try_from(packed), usize::try_from(size)) else { return wrong("is too large") };
    if packed > local.0.len() {
        return wrong("lies outside");
    }
    let possible = match method {
        Method::Stored => size == packed,
        Method::Deflated => size / MAX_RATIO <= packed,
    };
    if !possible {
        return wrong(&format!("cannot give {size} bytes from {packed}"));
    }
    let range = start..start + packed;
    Ok((Entry { name: text.to_owned(), method, crc, size, range: range.clone() }, offset..range.end, len))
}

/// An entry written so far.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) method: Method,
    pub(super) crc: u32,
    pub(super) packed: u64,
    pub(super) size: u64,
    pub(super) offset: u64,
}

/// 1 January 1980, the earliest date of zip: the output does not depend on the time of writing.
const DATE: u32 = 0x0021_0000;
/// Names are UTF-8.
const FLAGS: u16 = 0x800;
/// Where a local header has checksum and lengths: bytes 14 to 26.
pub(super) const CHECKSUM_AT: u64 = 14;

impl Written {
    fn version(zip64: bool) -> u16 {
        if zip64 { 45 } else { 20 }
    }

    /// Version, flags, method, date, checksum, lengths: the middle of both records.
    fn common(&self, zip64: bool, packed: u32, size: u32) -> Vec<u8> {
        let mut out = Vec::new();
        [Self::version(zip64), FLAGS, self.method as u16].iter().for_each(|n| out.extend(n.to_le_bytes()));
        [DATE, self.crc, packed, size].iter().for_each(|n| out.extend(n.to_le_bytes()));
        out
    }

    /// The local header, padded so that the data starts at a multiple of `alignment`. With `zip64` the lengths are in
    /// an extra field, which comes first.
    pub(super) fn local(&self, zip64: bool, alignment: u64) -> Vec<u8> {
        let (packed, size) = if zip64 { (u32::MAX, u32::MAX) } else { (self.packed as u32, self.size as u32) };
        let mut extra = Vec::new();
        if zip64 {
            extra = [&[1, 0, 16, 0][..], &self.size.to_le_bytes(), &self.packed.to_le_bytes()].concat();
        }
        let bare = self.offset + 30 + (self.name.len() + extra.len()) as u64;
        if !bare.is_multiple_of(alignment) {
            // Field 0xd935 is the one that tools know as padding: alignment, then zeros.
            let padding = (bare + 6).next_multiple_of(alignment) - bare - 6;
            [0xd935, 2 + padding as u16, alignment as u16].iter().for_each(|n| extra.extend(n.to_le_bytes()));
            extra.resize(extra.len() + padding as usize, 0);
        }
        let lengths = [(self.name.len() as u16).to_le_bytes(), (extra.len() as u16).to_le_bytes()].concat();
        [&LOCAL.to_le_bytes()[..], &self.common(zip64, packed, size), &lengths, self.name.as_bytes(), &extra].concat()
    }

    /// Numbers from `limit` on are stored in a zip64 field.
    fn record(&self, limit: u64) -> Vec<u8> {
        let large: Vec<u64> = [self.size, self.packed, self.offset].into_iter().filter(|&n| n >= limit).collect();
        let mut extra = Vec::new();
        if !large.is_empty() {
            extra.extend([1, 0, 8 * large.len() as u8, 0]);
            large.iter().for_each(|n| extra.extend(n.to_le_bytes()));
        }
        let mut out = DIRECTORY.to_le_bytes().to_vec();
        out.extend(Self::version(!large.is_empty()).to_le_bytes());
        out.extend(self.common(!large.is_empty(), narrow(self.packed, limit), narrow(self.size, limit)));
        out.extend((self.name.len() as u16).to_le_bytes());
        out.extend((extra.len() as u16).to_le_bytes());
        // Comment, volume and attributes.
        out.extend([0; 10]);
        out.extend(narrow(self.offset, limit).to_le_bytes());
        out.extend(self.name.as_bytes());
        out.extend(extra);
        out
    }
}

fn narrow(n: u64, limit: u64) -> u32 {
    if n < limit { n as u32 } else { u32::MAX }
}

/// The directory of `entries`, which starts at byte `at`, and the records after it.
pub(super) fn directory(entries: &[Written], at: u64) -> Vec<u8> {
    directory_with(entries, at, IN_ZIP64)
}

fn directory_with(entries: &[Written], at: u64, limit: u64) -> Vec<u8> {
    let mut out: Vec<u8> = entries.iter().flat_map(|entry| entry.record(limit)).collect();
    let (count, size) = (entries.len() as u64, out.len() as u64);
    if count >= limit.min(0xffff) || size >= limit || at >= limit {
        out.extend(END64.to_le_bytes());
        out.extend(44u64.to_le_bytes());
        out.extend([45, 0, 45, 0]);
        out.extend([0; 8]);
        [count, count, size, at].iter().for_each(|n| out.extend(n.to_le_bytes()));
        out.extend(END64_LOCATOR.to_le_bytes());
        out.extend([0; 4]);
        out.extend((at + size).to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    out.extend(END.to_le_bytes());
    out.extend([0; 4]);
    let count = (narrow(count, limit.min(0xffff)) as u16).to_le_bytes();
    out.extend([count, count].concat());
    [size, at].iter().for_each(|&n| out.extend(narrow(n, limit).to_le_bytes()));
    out.extend([0; 2]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of an archive of more than 4 GiB, with small data.
    #[test]
    fn numbers_of_64_bits() {
        let mut file = Vec::new();
        let mut entries = Vec::new();
        for name in ["a.npy", "b.npy"] {
            let crc = 0x3610_a686; // of "hello"
            let (name, offset) = (name.to_owned(), file.len() as u64);
            let entry = Written { name, method: Method::Stored, crc, packed: 5, size: 5, offset };
            file.extend(entry.local(true, 64));
            assert!(file.len().is_multiple_of(64));
            file.extend(b"hello");
            entries.push(entry);
        }
        file.extend(directory_with(&entries, file.len() as u64, 0));
        if let Some(path) = std::env::var_os("BITNET_WRITE_FILES") {
            std::fs::write(std::path::Path::new(&path).join("zip64.zip"), &file).unwrap();
        }
        let read = parse(&file).unwrap();
        assert_eq!(read.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a.npy", "b.npy"]);
        assert!(read.iter().all(|e| &file[e.range.clone()] == b"hello" && e.crc == 0x3610_a686));
        for n in 0..file.len() {
            assert!(parse(&file[..n]).is_err(), "cut to {n}");
        }
    }
}
