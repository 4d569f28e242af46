//! Changes of Linux's source: anchors, and our files below `arch/arm64/kvm/seawall`. `kernel/README.md` says what for.

use std::path::Path;

use seawall_anchor_edit::{Addition, Changes, Edit, Error, Place, Plan};

use crate::lab::error::Result;
use crate::lab::{files, root};

use Place::{LineAfter, LineBefore, Replace};

const ARM: &str = "arch/arm64/kvm/arm.c";
const MMU: &str = "arch/arm64/kvm/mmu.c";
const SEA_HANDLER: &str = "int kvm_handle_guest_sea(";
const INCLUDE: &str = "#include \"seawall/seawall.h\"";
/// Where our files go.
const FOLDER: &str = "arch/arm64/kvm/seawall";

/// All edits, for Linux 7.2 and 7.3.
#[rustfmt::skip]
pub(super) const EDITS: &[Edit<'_>] = &[
    // The two ioctls, with what they were as an argument.
    edit(ARM, "#include \"sys_regs.h\"", LineAfter, INCLUDE),
    edit(ARM, "kvm_arm_vcpu_set_events(vcpu, &events)", Replace,
        "seawall_set_events(vcpu, &events, kvm_arm_vcpu_set_events)"),
    edit(ARM, "kvm_arm_vcpu_get_events(vcpu, &events)", Replace,
        "seawall_get_events(vcpu, &events, kvm_arm_vcpu_get_events)"),

    // The exit.
    edit(MMU, "#include \"trace.h\"", LineAfter, INCLUDE),
    within(SEA_HANDLER, edit(MMU, "memset(&run->arm_sea", LineBefore,
        "\tif (seawall_sea_exit(vcpu))\n\t\treturn 0;\n")),
    within(SEA_HANDLER, edit(MMU, "return 0;", LineBefore, "\tseawall_sea_shadow(vcpu);\n")),

    edit("arch/arm64/kvm/Kconfig", "config PTDUMP_STAGE2_DEBUGFS", LineBefore,
        "source \"arch/arm64/kvm/seawall/Kconfig\"\n"),
    edit("arch/arm64/kvm/Makefile", "always-y := hyp_constants.h", LineBefore, "include $(src)/seawall/Kbuild\n"),
];

const fn edit<'a>(file: &'a str, anchor: &'a str, place: Place, text: &'a str) -> Edit<'a> {
    Edit { file, within: None, anchor, place, text }
}

const fn within<'a>(block: &'a str, edit: Edit<'a>) -> Edit<'a> {
    Edit { within: Some(block), ..edit }
}

/// A file of ours.
pub(super) struct Ours {
    /// Relative to Linux's tree.
    pub(super) place: String,
    text: String,
}

/// All of them, as they are in the workspace.
pub(super) fn ours() -> Result<Vec<Ours>> {
    let mut all = Vec::new();
    for (from, to) in [
        ("kernel/linux", ""),
        ("kernel/src", "/kernel"),
        ("crates/arm/src", "/arm"),
        ("crates/events/src", "/events"),
    ] {
        add(&root().join(from), &format!("{FOLDER}{to}"), &mut all)?;
    }
    Ok(all)
}

fn add(from: &Path, to: &str, all: &mut Vec<Ours>) -> Result<()> {
    for path in files::list(from)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("{to}/{name}");
        if path.is_dir() {
            add(&path, &place, all)?;
        } else {
            all.push(Ours { place, text: files::read_text(&path)? });
        }
    }
    Ok(())
}

/// Finds every place in a tree.
pub(super) fn plan(tree: &Path, ours: &[Ours]) -> std::result::Result<Plan, Error> {
    let additions: Vec<Addition<'_>> =
        ours.iter().map(|file| Addition { file: &file.place, text: &file.text }).collect();
    Changes { mark: "seawall", edits: EDITS, additions: &additions }.plan(tree)
}

/// True if the tree has every one of our changes.
pub(super) fn is_applied(tree: &Path) -> bool {
    EDITS
        .iter()
        .all(|edit| std::fs::read_to_string(tree.join(edit.file)).is_ok_and(|text| text.contains(edit.text)))
}

/// Brings our files in a tree that was changed before up to the workspace: those that differ, so that kbuild compiles no
/// other again.
pub(super) fn refresh(tree: &Path, ours: &[Ours]) -> Result<()> {
    for file in ours {
        let path = tree.join(&file.place);
        if std::fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            files::create_folder(folder)?;
        }
        files::write(&path, &file.text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the edits look for, in as few lines as have it.
    const TREE: [(&str, &str); 4] = [
        (
            ARM,
            "#include \"sys_regs.h\"\nif (kvm_arm_vcpu_get_events(vcpu, &events))\nreturn kvm_arm_vcpu_set_events(vcpu, &events);\n",
        ),
        (
            MMU,
            "#include \"trace.h\"\nint kvm_handle_guest_sea(x)\n{\n\tmemset(&run->arm_sea, 0);\n\treturn 0;\n}\nreturn 0;\n",
        ),
        ("arch/arm64/kvm/Kconfig", "config PTDUMP_STAGE2_DEBUGFS\n"),
        ("arch/arm64/kvm/Makefile", "always-y := hyp_constants.h\n"),
    ];

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().expect("a folder for temporary files");
        for (file, text) in TREE {
            let path = tree.path().join(file);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        tree
    }

    #[test]
    fn the_crates_go_in_as_they_are() {
        let ours = ours().expect("the workspace");
        let file =
            |place: &str| ours.iter().find(|file| file.place.ends_with(place)).map(|file| file.text.as_str());
        assert_eq!(
            file("seawall/events/kernel/set.rs"),
            Some(include_str!("../../../crates/events/src/kernel/set.rs"))
        );
        assert_eq!(file("seawall/arm/lib.rs"), Some(include_str!("../../../crates/arm/src/lib.rs")));
        assert_eq!(file("seawall/seawall.c"), Some(include_str!("../../../kernel/linux/seawall.c")));
    }

    #[test]
    fn a_tree_is_changed_once_and_its_files_of_ours_are_kept_up() {
        let (tree, ours) = (tree(), ours().expect("the workspace"));
        plan(tree.path(), &ours).and_then(Plan::apply).expect("every anchor is there");
        let arm = std::fs::read_to_string(tree.path().join(ARM)).expect("it is there");
        assert!(arm.contains("return seawall_set_events(vcpu, &events, kvm_arm_vcpu_set_events);"), "{arm}");
        assert!(matches!(plan(tree.path(), &ours), Err(Error::ChangedBefore { .. })));
        assert!(is_applied(tree.path()));
        let file = tree.path().join(FOLDER).join("seawall.c");
        std::fs::write(&file, "old").expect("it is ours");
        refresh(tree.path(), &ours).expect("it can be written");
        assert_eq!(
            std::fs::read_to_string(&file).ok().as_deref(),
            Some(include_str!("../../../kernel/linux/seawall.c"))
        );
    }

    #[test]
    fn a_tree_with_a_part_of_our_changes_is_refused_and_local_edits_stay() {
        let (tree, ours) = (tree(), ours().expect("the workspace"));
        let arm = tree.path().join(ARM);
        std::fs::write(&arm, format!("/* local */\n{}", TREE[0].1)).expect("it is there");
        plan(tree.path(), &ours).and_then(Plan::apply).expect("every anchor is there");
        assert!(std::fs::read_to_string(&arm).is_ok_and(|text| text.starts_with("/* local */\n#include")));
        std::fs::write(&arm, TREE[0].1).expect("it is there");
        assert!(!is_applied(tree.path()));
        assert!(matches!(plan(tree.path(), &ours), Err(Error::ChangedBefore { .. })));
    }

    #[test]
    fn an_anchor_that_is_there_twice_is_named_and_nothing_is_changed() {
        let (tree, ours) = (tree(), ours().expect("the workspace"));
        let mmu = tree.path().join(MMU);
        let twice = TREE[1].1.replace("\treturn 0;", "\treturn 0;\n\treturn 0;");
        std::fs::write(&mmu, &twice).expect("it is there");
        let error = plan(tree.path(), &ours).map(drop).expect_err("an anchor is there twice").to_string();
        let place = "mmu.c: expected \"return 0;\" exactly once within \"int kvm_handle_guest_sea(\", found it 2 times";
        assert!(error.contains(place), "{error}");
        assert_eq!(std::fs::read_to_string(&mmu).ok(), Some(twice));
        assert!(!tree.path().join(FOLDER).exists());
    }
}
