//! Tests that charts/Containerfile builds the same images as `cargo xtask image`.

use std::collections::BTreeMap;

use image::{Program, USER};
use parse_dockerfile::{Command, Dockerfile, Instruction, Source};

use crate::{example, workspace_file};

/// Runs `check` with each program, and the instructions of the stage that is its image.
fn for_each_image(check: impl Fn(Program, &Dockerfile<'_>, &[Instruction<'_>])) {
    let text = workspace_file("charts/Containerfile");
    let file = parse_dockerfile::parse(&text).unwrap();
    for program in Program::ALL {
        let stage = file.stage(program.name()).unwrap();
        assert_eq!(stage.from.image.value, "scratch");
        check(program, &file, stage.instructions);
    }
}

/// Returns the text of the only instruction that `pick` selects.
fn only<'s, 'a, T>(stage: &'s [Instruction<'a>], pick: impl Fn(&'s Instruction<'a>) -> Option<T>) -> T {
    let mut picked = stage.iter().filter_map(pick).collect::<Vec<_>>();
    assert_eq!(picked.len(), 1);
    picked.remove(0)
}

#[test]
fn the_containerfile_copies_exactly_the_files_of_cargo_image() {
    for_each_image(|program, file, stage| {
        let copy = only(stage, |instruction| if let Instruction::Copy(copy) = instruction { Some(copy) } else { None });
        let from = copy.options.iter().find(|option| option.name.value == "from").unwrap().value.as_ref().unwrap();
        let [Source::Path(source)] = copy.src.as_slice() else { panic!("{copy:?}") };
        assert_eq!((source.value.as_ref(), copy.dest.value.as_ref()), (&*format!("/images/{program}/"), "/"));
        assert!(!stage.iter().any(|instruction| matches!(instruction, Instruction::Add(_) | Instruction::Run(_))));

        // Files and flags come from `cargo xtask image`, which writes them to the copied folder.
        let made = file.stage(&from.value).unwrap();
        let run = only(
            made.instructions,
            |instruction| if let Instruction::Run(run) = instruction { Some(run) } else { None },
        );
        let Command::Shell(command) = &run.arguments else { panic!("{run:?}") };
        assert_eq!(command.value.trim(), format!("cargo xtask image {program} --root /images"));
    });
}

#[test]
fn the_containerfile_starts_the_program_as_the_same_user() {
    for_each_image(|program, _, stage| {
        let entry =
            only(
                stage,
                |instruction| {
                    if let Instruction::Entrypoint(entry) = instruction { Some(&entry.arguments) } else { None }
                },
            );
        let Command::Exec(words) = entry else { panic!("the image has no shell to run {entry:?}") };
        let words: Vec<_> = words.value.iter().map(|word| word.value.as_ref()).collect();
        assert_eq!(words, [example(program).root.path]);
        let user = only(stage, |instruction| if let Instruction::User(user) = instruction { Some(user) } else { None });
        assert_eq!(user.arguments.value, USER);
        assert!(!stage.iter().any(|instruction| matches!(instruction, Instruction::Cmd(_) | Instruction::Env(_))));
    });
}

#[test]
fn the_containerfile_sets_the_same_labels() {
    for_each_image(|program, _, stage| {
        let labels = stage.iter().filter_map(|instruction| {
            let Instruction::Label(label) = instruction else { return None };
            let (key, value) = label.arguments.value.split_once('=').unwrap();
            Some((key.to_owned(), value.trim_matches('"').to_owned()))
        });
        let mut expected = example(program).labels;
        // The context of the build does not contain the commit.
        for (key, argument) in [("revision", "$REVISION"), ("created", "$CREATED")] {
            expected.insert(format!("org.opencontainers.image.{key}"), argument.to_owned());
        }
        assert_eq!(labels.collect::<BTreeMap<_, _>>(), expected);
    });
}

#[test]
fn the_containerfile_compiles_with_the_rust_release_of_the_workspace() {
    let text = workspace_file("charts/Containerfile");
    let file = parse_dockerfile::parse(&text).unwrap();
    let builder = file.stage("builder").unwrap();
    assert_eq!(builder.from.image.value, format!("docker.io/library/rust:{}-bookworm", env!("CARGO_PKG_RUST_VERSION")));
}
