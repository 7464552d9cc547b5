use super::*;
use crate::data::{TokenFile, TokenWriter};
use std::path::PathBuf;

/// A folder of its own that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bitnet-data-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, vocab: usize, end: Option<u32>, tokens: &[u32]) -> PathBuf {
        let path = self.0.join(name);
        let mut writer = TokenWriter::create(&path, vocab, end, 42).unwrap();
        writer.put(tokens).unwrap();
        assert_eq!(writer.finish().unwrap(), tokens.len() as u64);
        path
    }

    /// The tokens `0..count` as a stream.
    fn counting(&self, count: u32) -> TokenSet {
        let tokens: Vec<u32> = (0..count).collect();
        TokenSet::open(&[self.write("counting", 100_000, None, &tokens)]).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(packing: Packing, order: Order) -> LoaderOptions {
    LoaderOptions { context: 8, batch: 3, packing, order, seed: 5 }
}

fn loader(tokens: TokenSet, order: Order) -> DataLoader {
    DataLoader::new(tokens, options(Packing::Stream, order), &Device::cpu()).unwrap()
}

fn values(tensor: &BitNetTensor) -> Vec<i64> {
    tensor.to_vec::<i64>().unwrap()
}

#[test]
fn narrow_and_wide_files_give_back_their_tokens() {
    let folder = Folder::new("widths");
    for (vocab, bytes) in [(65_536, 2), (65_537, 4)] {
        let tokens = [0, 1, 65_535, 77, 5];
        let path = folder.write("tokens", vocab, Some(7), &tokens);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 32 + 5 * bytes + 16);
        let file = TokenFile::open(&path).unwrap();
        assert_eq!((file.len(), file.vocab_size(), file.document_end(), file.fingerprint()), (5, vocab, Some(7), 42));
        let mut read = Vec::new();
        file.read(1..4, &mut read).unwrap();
        assert_eq!(read, [1, 65_535, 77]);
        assert!(file.read(3..6, &mut read).is_err());
    }
    let mut writer = TokenWriter::create(&folder.0.join("never"), 10, None, 0).unwrap();
    let message = writer.put(&[9, 10]).unwrap_err().to_string();
    assert!(message.contains("token 10 is outside the vocabulary of 10"), "{message}");
    drop(writer);
    assert!(!folder.0.join("never").exists());
}

#[test]
fn a_file_cut_anywhere_or_changed_at_its_ends_is_refused() {
    let folder = Folder::new("cut");
    let path = folder.write("whole", 100, None, &(0..50).collect::<Vec<_>>());
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.0.join("cut");
    for len in 0..bytes.len() {
        std::fs::write(&cut, &bytes[..len]).unwrap();
        let message = TokenFile::open(&cut).unwrap_err().to_string();
        let says = if len < 8 { "is not a token file" } else { "cut short or damaged" };
        assert!(message.contains(says) && message.contains("bitnet tokenize"), "{len}: {message}");
    }
    for at in (0..32).chain(132..148) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        std::fs::write(&cut, changed).unwrap();
        assert!(TokenFile::open(&cut).is_err(), "byte {at}");
    }
    // A token outside the vocabulary is found when it is read.
    let mut changed = bytes.clone();
    changed[32 + 2 * 20] = 200;
    std::fs::write(&cut, changed).unwrap();
    let mut out = Vec::new();
    let message = TokenFile::open(&cut).unwrap().read(10..30, &mut out).unwrap_err().to_string();
    assert!(message.contains("token 200 at place 20"), "{message}");
}

#[test]
fn foreign_files_are_refused_by_name() {
    let folder = Folder::new("foreign");
    let path = folder.0.join("input.txt");
    std::fs::write(&path, "First Citizen: Before we proceed any further, hear me speak.").unwrap();
    assert!(!TokenFile::is_one(&path).unwrap());
    let message = TokenFile::open(&path).unwrap_err().to_string();
    assert!(message.contains("input.txt: this is not a token file"), "{message}");
    assert!(TokenFile::open(folder.0.join("absent")).unwrap_err().to_string().contains("absent"));
    let one = folder.write("one", 100, None, &[1]);
    let other = folder.write("other", 101, None, &[1]);
    assert!(TokenFile::is_one(&one).unwrap());
    let message = TokenSet::open(&[&one, &other]).unwrap_err().to_string();
    assert!(message.contains("other: another tokenizer"), "{message}");
    let set = TokenSet::open(&[&one]).unwrap();
    set.check_tokenizer(100, 42).unwrap();
    assert!(set.check_tokenizer(100, 43).unwrap_err().to_string().contains("another tokenizer"));
}

#[test]
fn random_rows_are_windows_of_the_stream_everywhere() {
    let folder = Folder::new("random");
    let mut loader = loader(folder.counting(100), Order::Random);
    let mut starts = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let batch = loader.next_batch().unwrap();
        assert_eq!((batch.inputs.dims(), batch.counted), (&[3, 8][..], 24));
        let (inputs, targets) = (values(&batch.inputs), values(&batch.targets));
        assert!(inputs.iter().zip(&targets).all(|(a, b)| a + 1 == *b));
        assert!(inputs.chunks(8).all(|row| row.windows(2).all(|w| w[0] + 1 == w[1])));
        starts.extend(inputs.iter().step_by(8).copied());
    }
    // Every place from which a row and its last target fit, and no other.
    assert_eq!(starts, (0..92).collect());
}

#[test]
fn epochs_have_each_row_once() {
    let folder = Folder::new("epochs");
    let tokens = folder.counting(12 * 8 + 5);
    let mut in_order = loader(tokens.clone(), Order::Sequential);
    let mut drawn = loader(tokens, Order::Shuffled);
    assert_eq!(drawn.rows(), 12);
    let epoch = |loader: &mut DataLoader| -> Vec<i64> {
        (0..4).flat_map(|_| values(&loader.next_batch().unwrap().inputs)).step_by(8).collect()
    };
    let starts: Vec<i64> = (0..12).map(|r| 8 * r).collect();
    let (first, second) = (epoch(&mut drawn), epoch(&mut drawn));
    assert_eq!(epoch(&mut in_order), starts);
    assert_ne!(first, second);
    for mut drawn in [first, second] {
        assert_ne!(drawn, starts);
        drawn.sort_unstable();
        assert_eq!(drawn, starts);
    }
    assert_eq!(drawn.epochs(), 2.0);
}

#[test]
fn a_restored_loader_gives_the_batches_that_would_have_come() {
    let folder = Folder::new("restore");
    let tokens = folder.counting(500);
    for order in [Order::Random, Order::Shuffled, Order::Sequential] {
        let mut whole = loader(tokens.clone(), order);
        (0..37).for_each(|_| drop(whole.next_batch().unwrap()));
        let position = serde_json::to_string(&whole.position()).unwrap();
        let mut resumed = loader(tokens.clone(), order);
        resumed.restore(&serde_json::from_str(&position).unwrap()).unwrap();
        for _ in 0..50 {
            let (a, b) = (whole.next_batch().unwrap(), resumed.next_batch().unwrap());
            assert_eq!(values(&a.inputs), values(&b.inputs));
            assert_eq!(values(&a.targets), values(&b.targets));
        }
        let mut other = DataLoader::new(
            tokens.clone(),
            LoaderOptions { seed: 6, ..options(Packing::Stream, order) },
            &Device::cpu(),
        )
        .unwrap();
        let message = other.restore(&whole.position()).unwrap_err().to_string();
        assert!(message.contains("seed 5") && message.contains("seed 6"), "{message}");
        let (fewer, _) = tokens.split(0.5);
        let message = loader(fewer, order).restore(&whole.position()).unwrap_err().to_string();
        assert!(message.contains("500 tokens") && message.contains("250 tokens"), "{message}");
    }
}

/// Four documents; 9 ends them, the last has no end.
const DOCUMENTS: [u32; 26] = [1, 1, 9, 2, 2, 2, 9, 9, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 9, 4, 4, 4];

#[test]
fn documents_are_packed_whole_and_do_not_see_each_other() {
    let folder = Folder::new("packed");
    let path = folder.write("tokens", 10, Some(9), &DOCUMENTS);
    let tokens = TokenSet::open(&[path]).unwrap();
    assert_eq!(tokens.documents(), [0..3, 3..7, 7..8, 8..23, 23..26]);
    let options = LoaderOptions { batch: 3, ..options(Packing::Packed, Order::Sequential) };
    let mut loader = DataLoader::new(tokens.clone(), options, &Device::cpu()).unwrap();
    let batch = loader.next_batch().unwrap();
    let rows = |t: &BitNetTensor| values(t).chunks(8).map(<[i64]>::to_vec).collect::<Vec<_>>();
    let x = IGNORED;
    assert_eq!(rows(&batch.inputs), [[1, 1, 2, 2, 2, 0, 0, 0], [3; 8], [3, 3, 3, 3, 3, 3, 4, 4]]);
    assert_eq!(rows(&batch.targets), [[1, 9, 2, 2, 9, x, x, x], [3; 8], [3, 3, 3, 3, 3, 9, 4, 4]]);
    assert_eq!(rows(batch.positions.as_ref().unwrap())[0], [0, 1, 0, 1, 2, 0, 0, 0]);
    assert_eq!(rows(batch.segments.as_ref().unwrap())[0], [0, 0, 1, 1, 1, -1, -1, -1]);
    assert_eq!(rows(batch.segments.as_ref().unwrap())[2], [0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(batch.counted, 21);

    let evaluation = Evaluation::new(tokens, 8, 4, Packing::Padded, 0, &Device::cpu()).unwrap();
    let batches: Vec<Batch> = evaluation.batches().map(Result::unwrap).collect();
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[1].inputs.dims(), [1, 8]);
    assert_eq!(rows(&batches[0].inputs)[1], [2, 2, 2, 0, 0, 0, 0, 0]);
    assert_eq!(rows(&batches[0].targets)[1], [2, 2, 9, x, x, x, x, x]);
    assert!(batches[0].segments.is_none());
}

#[test]
fn an_evaluation_predicts_each_token_once() {
    let folder = Folder::new("evaluation");
    let first = folder.write("first", 1000, None, &(0..70).collect::<Vec<_>>());
    let second = folder.write("second", 1000, None, &(70..101).collect::<Vec<_>>());
    let tokens = TokenSet::open(&[first, second]).unwrap();
    let evaluation = Evaluation::new(tokens.clone(), 8, 3, Packing::Stream, 0, &Device::cpu()).unwrap();
    let batches: Vec<Batch> = evaluation.batches().map(Result::unwrap).collect();
    assert_eq!(batches.len(), evaluation.len());
    let targets: Vec<i64> = batches.iter().flat_map(|b| values(&b.targets)).filter(|&t| t != IGNORED).collect();
    assert_eq!(targets, (1..101).collect::<Vec<_>>());
    assert_eq!(batches.iter().map(|b| b.counted).sum::<usize>(), 100);
    let some = Evaluation::new(tokens.clone(), 8, 3, Packing::Stream, 2, &Device::cpu()).unwrap();
    let firsts: Vec<i64> = some.batches().map(|b| values(&b.unwrap().inputs)[0]).collect();
    assert_eq!(firsts, [0, 48]);

    let (train, rest) = tokens.split(0.1);
    assert_eq!((train.len(), rest.len()), (90, 11));
    let mut read = Vec::new();
    rest.read(0..11, &mut read).unwrap();
    assert_eq!(read, (90..101).collect::<Vec<_>>());
}

#[test]
fn too_few_tokens_are_an_error() {
    let folder = Folder::new("few");
    let new = |count| DataLoader::new(folder.counting(count), options(Packing::Stream, Order::Random), &Device::cpu());
    let message = new(8).unwrap_err().to_string();
    assert!(message.contains("8 tokens make no row of 8: at least 9"), "{message}");
    assert!(new(9).is_ok());
    let packed = DataLoader::new(folder.counting(9), options(Packing::Packed, Order::Random), &Device::cpu());
    assert!(packed.unwrap_err().to_string().contains("shuffle"));
}

#[test]
fn documents_go_where_they_fit_best() {
    let folder = Folder::new("best-fit");
    // Documents of 3, 6, 5, 2 and 8 inputs, each ended by 9, which is only a target.
    let lengths = [3, 6, 5, 2, 8];
    let documents = lengths.iter().zip(1..).flat_map(|(&n, token)| [vec![token; n], vec![9]].concat());
    let path = folder.write("tokens", 10, Some(9), &documents.collect::<Vec<u32>>());
    let tokens = TokenSet::open(&[path]).unwrap();
    let rows = |packing| {
        let options = LoaderOptions { batch: 1, ..options(packing, Order::Sequential) };
        let mut loader = DataLoader::new(tokens.clone(), options, &Device::cpu()).unwrap();
        (0..loader.rows()).map(|_| values(&loader.next_batch().unwrap().inputs)).collect::<Vec<_>>()
    };
    let expected = [[5; 8], [2, 2, 2, 2, 2, 2, 4, 4], [3, 3, 3, 3, 3, 1, 1, 1]];
    assert_eq!(rows(Packing::BestFit), expected);
    assert_eq!(rows(Packing::Packed).len(), 4);
}

/// Two chats of which the last two tokens are the answer.
fn chats(folder: &Folder) -> PathBuf {
    let path = folder.0.join("chats");
    let mut writer = TokenWriter::create_marked(&path, 10, Some(9), 42).unwrap();
    writer.put_document(&[1, 9, 2, 9], &[false, false, true, true]).unwrap();
    writer.put_document(&[3, 3, 9, 4, 9], &[false, false, false, true, true]).unwrap();
    // Longer than a row: its first row has nothing to learn.
    writer.put_document(&[5; 12], &[[false; 10].as_slice(), &[true; 2]].concat()).unwrap();
    writer.finish().unwrap();
    path
}

#[test]
fn questions_of_a_chat_are_no_targets() {
    let folder = Folder::new("chats");
    let tokens = TokenSet::open(&[chats(&folder)]).unwrap();
    let all = LoaderOptions { batch: 2, ..options(Packing::BestFit, Order::Sequential) };
    let mut loader = DataLoader::new(tokens.clone(), all, &Device::cpu()).unwrap();
    let batch = loader.next_batch().unwrap();
    let rows = |t: &BitNetTensor| values(t).chunks(8).map(<[i64]>::to_vec).collect::<Vec<_>>();
    let x = IGNORED;
    assert_eq!(rows(&batch.inputs), [[3, 3, 9, 4, 1, 9, 2, 0], [5, 5, 5, 0, 0, 0, 0, 0]]);
    assert_eq!(rows(&batch.targets), [[x, x, 4, 9, x, 2, 9, x], [x, 5, 5, x, x, x, x, x]]);
    assert_eq!(batch.counted, 6);
    let stream = DataLoader::new(tokens.clone(), options(Packing::Stream, Order::Random), &Device::cpu());
    assert!(stream.unwrap_err().to_string().contains("data.packing to \"best-fit\""));
    // Beside a text of the same tokenizer, which has no marks.
    let text = folder.write("text", 10, Some(9), &[6, 6, 9]);
    let both = TokenSet::open(&[chats(&folder), text]).unwrap();
    assert_eq!(both.documents(), [0..4, 4..9, 9..21, 21..24]);
    let file = TokenFile::open(chats(&folder)).unwrap();
    assert_eq!((file.len(), file.vocab_size(), file.document_end()), (21, 10, Some(9)));
}

#[test]
fn rows_come_from_each_source_as_its_weight_says() {
    let folder = Folder::new("weights");
    let sets = || {
        let set = |name: &str, range: std::ops::Range<u32>| {
            TokenSet::open(&[folder.write(name, 1000, None, &range.collect::<Vec<_>>())]).unwrap()
        };
        vec![(set("small", 0..50), 3.0), (set("large", 100..900), 1.0)]
    };
    for order in [Order::Random, Order::Shuffled, Order::Sequential] {
        let loader = || DataLoader::mixed(sets(), options(Packing::Stream, order), &Device::cpu()).unwrap();
        let mut whole = loader();
        let (mut small, mut seen) = (0, std::collections::BTreeSet::new());
        for _ in 0..400 {
            for row in values(&whole.next_batch().unwrap().inputs).chunks(8) {
                small += usize::from(row[0] < 100);
                seen.insert(row[0]);
                assert!(row.windows(2).all(|w| w[0] + 1 == w[1]));
            }
        }
        // Six standard deviations of 1200 draws.
        assert!((810..=990).contains(&small), "{small}");
        if order == Order::Shuffled {
            // Each row of both, for both were passed through.
            assert_eq!(seen.len(), 49 / 8 + 799 / 8);
        }
        let position: DataPosition = serde_json::from_str(&serde_json::to_string(&whole.position()).unwrap()).unwrap();
        let mut resumed = loader();
        resumed.restore(&position).unwrap();
        for _ in 0..20 {
            assert_eq!(values(&whole.next_batch().unwrap().inputs), values(&resumed.next_batch().unwrap().inputs));
        }
        let mut other = sets();
        other[0].1 = 2.0;
        let mut other = DataLoader::mixed(other, options(Packing::Stream, order), &Device::cpu()).unwrap();
        let message = other.restore(&position).unwrap_err().to_string();
        assert!(message.contains("data.weights [3.0, 1.0]"), "{message}");
    }
}
