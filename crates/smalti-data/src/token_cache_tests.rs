use super::*;
use std::fs;

fn spec() -> TokenCacheSpec {
    TokenCacheSpec {
        tokenizer: "abc".to_owned(),
        codebook_sizes: vec![4, 8],
        shape: [3, 2, 1, 2],
        classes: vec!["cat".to_owned(), "dog".to_owned()],
        code_dim: Some(3),
        views: Views::One {},
    }
}

const CODES: [u32; 12] = [0, 3, 7, 0, 1, 2, 5, 6, 2, 2, 1, 1];

fn latents() -> Vec<f32> {
    (0..18).map(|i| i as f32 / 4.0).collect()
}

fn write(path: &Path) {
    let mut writer = TokenCacheWriter::create(path, spec()).unwrap();
    writer.push(&CODES[..8], &latents()[..12], &[1, 0]).unwrap();
    writer.push(&CODES[8..], &latents()[12..], &[1]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.cache");
    write(&path);
    let cache = TokenCache::open(&path).unwrap();
    assert_eq!(
        (cache.spec(), cache.len(), cache.codes(), cache.labels()),
        (&spec(), 3, &CODES[..], Some(&[1, 0, 1][..]))
    );
    assert_eq!(cache.codes_of(&[2, 0]), [&CODES[8..], &CODES[..4]].concat());
    assert_eq!(
        cache.latents_of(&[2, 0]).unwrap(),
        [&latents()[12..], &latents()[..6]].concat()
    );
    cache.require_tokenizer("abc").unwrap();
    assert!(matches!(
        cache.require_tokenizer("x"),
        Err(TokenFileError::WrongTokenizer { .. })
    ));
    let bytes = fs::read(&path).unwrap();
    write(&path);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("latents").unwrap().shape(), [3, 3, 1, 2]);
    assert_eq!(
        tensors.tensor("labels").unwrap().data()[..4],
        1u32.to_le_bytes()
    );
}

#[test]
fn views_are_told_where_there_are_several() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.cache");
    write(&path);
    let plain = fs::read(&path).unwrap();
    assert!(!plain.windows(5).any(|part| part == b"views"));
    let views = Views::TenCrop {
        size: 32,
        enlarge: 1.1,
    };
    let spec = TokenCacheSpec {
        shape: [10, 2, 1, 2],
        views,
        classes: vec![],
        code_dim: None,
        ..spec()
    };
    let mut writer = TokenCacheWriter::create(&path, spec).unwrap();
    for _ in 0..10 {
        writer.push(&CODES[..4], &[], &[]).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(TokenCache::open(&path).unwrap().spec().views, views);
}

#[test]
fn labels_and_latents_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.cache");
    let mut writer = TokenCacheWriter::create(
        &path,
        TokenCacheSpec {
            classes: vec![],
            code_dim: None,
            ..spec()
        },
    )
    .unwrap();
    writer.push(&CODES, &[], &[]).unwrap();
    writer.finish().unwrap();
    let cache = TokenCache::open(&path).unwrap();
    assert_eq!((cache.labels(), cache.spec().code_dim), (None, None));
    assert!(matches!(
        cache.latents_of(&[0]),
        Err(TokenFileError::MissingTensor {
            name: "latents",
            ..
        })
    ));
}

#[test]
fn large_reads_come_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.cache");
    let shape = [2, 1, 130, 130];
    let spec = TokenCacheSpec {
        shape,
        codebook_sizes: vec![1 << 20],
        code_dim: Some(3),
        classes: vec![],
        ..spec()
    };
    let codes: Vec<u32> = (0..2 * 130 * 130).collect();
    let latents: Vec<f32> = (0..6 * 130 * 130).map(|i| i as f32).collect();
    let mut writer = TokenCacheWriter::create(&path, spec).unwrap();
    writer.push(&codes, &latents, &[]).unwrap();
    writer.finish().unwrap();
    let cache = TokenCache::open(&path).unwrap();
    assert!(cache.codes() == codes && cache.latents_of(&[0, 1]).unwrap() == latents);
}

#[test]
fn a_writer_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.cache");
    for wrong in [
        TokenCacheSpec {
            tokenizer: String::new(),
            ..spec()
        },
        TokenCacheSpec {
            codebook_sizes: vec![4],
            ..spec()
        },
        TokenCacheSpec {
            shape: [0, 2, 1, 2],
            ..spec()
        },
        TokenCacheSpec {
            code_dim: Some(0),
            ..spec()
        },
        TokenCacheSpec {
            views: Views::Flip {},
            ..spec()
        },
    ] {
        assert!(matches!(
            TokenCacheWriter::create(&path, wrong),
            Err(TokenFileError::Inconsistent { .. })
        ));
    }
    let mut writer = TokenCacheWriter::create(&path, spec()).unwrap();
    assert!(matches!(
        writer.push(&CODES[..3], &[], &[]),
        Err(TokenFileError::WrongShape { .. })
    ));
    assert!(matches!(
        writer.push(&[4, 0, 0, 0], &latents()[..6], &[0]),
        Err(TokenFileError::CodeOutOfRange { code: 4, .. })
    ));
    assert!(matches!(
        writer.push(&CODES[..4], &latents()[..5], &[0]),
        Err(TokenFileError::Inconsistent { .. })
    ));
    assert!(matches!(
        writer.push(&CODES[..4], &latents()[..6], &[]),
        Err(TokenFileError::Inconsistent { .. })
    ));
    assert!(matches!(
        writer.push(&CODES[..4], &latents()[..6], &[2]),
        Err(TokenFileError::Inconsistent { .. })
    ));
    writer.push(&CODES, &latents(), &[0, 0, 0]).unwrap();
    assert!(matches!(
        writer.push(&CODES[..4], &latents()[..6], &[0]),
        Err(TokenFileError::Inconsistent { .. })
    ));
    assert!(!path.exists());
    let mut unfinished = TokenCacheWriter::create(&path, spec()).unwrap();
    unfinished.push(&CODES[..4], &latents()[..6], &[0]).unwrap();
    let message = unfinished.finish().unwrap_err().to_string();
    assert!(message.contains("begun for 3 images, got 1"), "{message}");
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn malformed_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.cache");
    let open_changed = |from: &str, to: &str| {
        write(&path);
        let bytes = fs::read(&path).unwrap();
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..8 + len].to_vec()).unwrap();
        assert!(header.contains(from), "{from} is not in {header}");
        let header = header.replacen(from, to, 1);
        fs::write(
            &path,
            [
                &(header.len() as u64).to_le_bytes(),
                header.as_bytes(),
                &bytes[8 + len..],
            ]
            .concat(),
        )
        .unwrap();
        TokenCache::open(&path).unwrap_err()
    };
    assert!(matches!(
        open_changed("token_cache", "tokens"),
        TokenFileError::WrongFormat { .. }
    ));
    assert!(matches!(
        open_changed("\"latents\"", "\"logits\""),
        TokenFileError::UnexpectedTensors { .. }
    ));
    assert!(matches!(
        open_changed("[3,3,1,2]", "[3,3,2,1]"),
        TokenFileError::WrongShape {
            name: "latents",
            ..
        }
    ));
    assert!(matches!(
        open_changed("\"shape\":[3]", "\"shape\":[3,1]"),
        TokenFileError::WrongShape { name: "labels", .. }
    ));
    assert!(matches!(
        open_changed("[\\\"cat\\\",\\\"dog\\\"]", "[]"),
        TokenFileError::Inconsistent { .. }
    ));
    assert!(matches!(
        open_changed("[\\\"cat\\\",\\\"dog\\\"]", "[\\\"cat\\\"]"),
        TokenFileError::Inconsistent { .. }
    ));
    assert!(matches!(
        open_changed("[4,8]", "[4,4]"),
        TokenFileError::CodeOutOfRange { .. }
    ));
    write(&path);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(
        TokenCache::open(&path),
        Err(TokenFileError::WrongLength { .. })
    ));
}
