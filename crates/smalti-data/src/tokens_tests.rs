use super::*;
use proptest::prelude::*;
use std::fs;

fn record(name: &str) -> ImageRecord {
    ImageRecord::padded(name, &Padding::to_multiple(5, 3, 4).unwrap())
}

fn small() -> TokenFile {
    TokenFile {
        tokenizer: "abc".to_owned(),
        codebook_sizes: vec![4, 8],
        codes: vec![0, 3, 7, 0, 1, 2, 5, 6],
        shape: [2, 2, 1, 2],
        images: vec![record("a.png"), record("b \"quoted\" ü.png")],
    }
}

/// The bytes of a good file, changed, and what reading them says.
fn read_changed(change: impl FnOnce(&mut Vec<u8>)) -> TokenFileError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    small().write(&path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let error = TokenFile::read(&path).unwrap_err();
    assert!(error.to_string().contains("a.tokens"), "{error}");
    error
}

/// Replaces text in the header, the header's length adjusted.
fn read_with_header(from: &str, to: &str) -> TokenFileError {
    read_changed(|bytes| {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..8 + len].to_vec()).unwrap();
        assert!(header.contains(from), "{from} is not in {header}");
        let header = header.replacen(from, to, 1);
        let mut changed = (header.len() as u64).to_le_bytes().to_vec();
        changed.extend(header.bytes().chain(bytes[8 + len..].iter().copied()));
        *bytes = changed;
    })
}

fn refused(change: impl FnOnce(&mut TokenFile)) -> TokenFileError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    let mut file = small();
    change(&mut file);
    let error = file.write(&path).unwrap_err();
    assert!(!path.exists());
    error
}

#[test]
fn other_programs_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    small().write(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let codes = tensors.tensor("codes").unwrap();
    assert_eq!(
        (codes.dtype(), codes.shape()),
        (Dtype::U32, &[2, 2, 1, 2][..])
    );
    assert_eq!(codes.data()[8..12], 7u32.to_le_bytes());
    small().write(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn written_down_header() {
    // A change here is a new version of the format.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    TokenFile {
        images: vec![record("a.png")],
        codes: vec![1, 2, 3, 4],
        shape: [1, 2, 1, 2],
        ..small()
    }
    .write(&path)
    .unwrap();
    let bytes = fs::read(&path).unwrap();
    let header = r#"{"__metadata__":{"smalti":"{\"format\":\"tokens\",\"version\":1,\"tokenizer\":\"abc\",\"codebook_sizes\":[4,8],\"images\":[{\"name\":\"a.png\",\"width\":5,\"height\":3,\"padded_width\":8,\"padded_height\":4,\"crop\":[0,0,5,3]}]}"},"codes":{"dtype":"U32","shape":[1,2,1,2],"data_offsets":[0,16]}}"#;
    assert_eq!(
        String::from_utf8_lossy(&bytes[8..bytes.len() - 16]).trim_end(),
        header
    );
    assert!((bytes.len() - 16).is_multiple_of(8));
}

#[test]
fn broken_frames() {
    assert!(matches!(
        read_changed(|bytes| bytes.truncate(5)),
        TokenFileError::NotSafetensors { .. }
    ));
    assert!(matches!(
        read_changed(|bytes| bytes[7] = 1),
        TokenFileError::NotSafetensors { .. }
    ));
    assert!(matches!(
        read_changed(|bytes| bytes.truncate(40)),
        TokenFileError::WrongLength { got: 40, .. }
    ));
    assert!(matches!(
        read_changed(|bytes| bytes.truncate(bytes.len() - 1)),
        TokenFileError::WrongLength { .. }
    ));
    assert!(matches!(
        read_changed(|bytes| bytes.push(0)),
        TokenFileError::WrongLength { .. }
    ));
    assert!(matches!(
        read_changed(|bytes| bytes[8] = b'['),
        TokenFileError::NotSafetensors { .. }
    ));
    assert!(matches!(
        read_with_header("[0,32]", "[4,32]"),
        TokenFileError::NotSafetensors { .. }
    ));
    assert!(matches!(
        read_with_header("[2,2,1,2]", "[2,2,1,3]"),
        TokenFileError::NotSafetensors { .. }
    ));
    assert!(matches!(
        read_with_header("[2,2,1,2]", "[18446744073709551615,2,1,2]"),
        TokenFileError::NotSafetensors { .. }
    ));
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        TokenFile::read(&folder.path().join("none")),
        Err(TokenFileError::Io { .. })
    ));
}

#[test]
fn foreign_descriptions() {
    assert!(matches!(
        read_with_header("\"smalti\"", "\"other\""),
        TokenFileError::Foreign { .. }
    ));
    assert!(matches!(
        read_with_header("\\\"tokenizer\\\":\\\"abc\\\",", ""),
        TokenFileError::Description { .. }
    ));
    assert!(matches!(
        read_with_header("\\\"tokenizer\\\":", "\\\"x\\\":1,\\\"tokenizer\\\":"),
        TokenFileError::Description { .. }
    ));
    assert!(matches!(
        read_with_header("\\\"tokens\\\"", "\\\"token_cache\\\""),
        TokenFileError::WrongFormat { .. }
    ));
    assert!(matches!(
        read_with_header("\\\"version\\\":1", "\\\"version\\\":2"),
        TokenFileError::WrongVersion { got: 2, .. }
    ));
}

#[test]
fn wrong_tensors() {
    assert!(matches!(
        read_with_header("\"codes\"", "\"tokens\""),
        TokenFileError::UnexpectedTensors { .. }
    ));
    assert!(matches!(
        read_with_header("\"U32\"", "\"F32\""),
        TokenFileError::WrongType {
            got: Dtype::F32,
            ..
        }
    ));
    assert!(matches!(
        read_with_header("[2,2,1,2]", "[2,2,2]"),
        TokenFileError::WrongShape { .. }
    ));
    let no_tensor = read_changed(|bytes| {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..8 + len].to_vec()).unwrap();
        let header = format!("{}}}", &header[..header.find(",\"codes\"").unwrap()]);
        *bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
    });
    assert!(
        matches!(
            no_tensor,
            TokenFileError::MissingTensor { name: "codes", .. }
        ),
        "{no_tensor:?}"
    );
}

#[test]
fn wrong_codes_and_descriptions_that_do_not_fit() {
    let large = read_changed(|bytes| {
        let at = bytes.len() - 4;
        bytes[at] = 8;
    });
    assert!(
        matches!(
            large,
            TokenFileError::CodeOutOfRange {
                code: 8,
                position: [1, 1, 0, 1],
                codebook_size: 8,
                ..
            }
        ),
        "{large:?}"
    );
    assert!(matches!(
        read_with_header("[4,8]", "[4,8,8]"),
        TokenFileError::Inconsistent { .. }
    ));
    assert!(matches!(
        refused(|file| file.codes[0] = 4),
        TokenFileError::CodeOutOfRange {
            position: [0, 0, 0, 0],
            ..
        }
    ));
    assert!(matches!(
        refused(|file| file.codes.truncate(7)),
        TokenFileError::WrongShape { .. }
    ));
    let changes: [fn(&mut TokenFile); 8] = [
        |file| file.tokenizer.clear(),
        |file| file.codebook_sizes[0] = 0,
        |file| file.shape = [0, 2, 1, 2],
        |file| drop(file.images.pop()),
        |file| file.images[0].crop = [4, 0, 5, 3],
        |file| file.images[0].crop = [usize::MAX, 0, 5, 3],
        |file| file.images[1].width = 0,
        |file| file.images[1].padded_width = 12,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let error = refused(change);
        assert!(
            matches!(error, TokenFileError::Inconsistent { .. }),
            "change {i}: {error:?}"
        );
    }
}

#[test]
fn another_tokenizer_is_refused_by_both_names() {
    let path = Path::new("a.tokens");
    small().require_tokenizer(path, "abc").unwrap();
    let message = small()
        .require_tokenizer(path, "xyz")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("abc") && message.contains("xyz") && message.contains("a.tokens"),
        "{message}"
    );
}

prop_compose! {
    fn files()(
        shape in [1usize..3, 1usize..4, 1usize..5, 1usize..5],
        sizes in [1u32..100_000, 1u32..5, 1u32..10],
        name in ".{0,12}",
        seed in any::<u32>(),
    ) -> TokenFile {
        let codebook_sizes = sizes[..shape[1]].to_vec();
        let plane = shape[2] * shape[3];
        let draw = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
        let code = |i: usize| draw(i) % codebook_sizes[i / plane % shape[1]];
        let codes = (0..shape.iter().product()).map(code).collect();
        let images = vec![record(&name); shape[0]];
        TokenFile { tokenizer: "f".repeat(64), codes, shape, images, codebook_sizes }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(file in files()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        file.write(&path).unwrap();
        prop_assert_eq!(TokenFile::read(&path).unwrap(), file);
    }

    #[test]
    fn changed_bytes_are_an_error_or_a_valid_file(at in 0usize..400, flip in 1u8..) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tokens");
        small().write(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = TokenFile::read(&path) {
            file.check(&path).unwrap();
        }
    }
}
