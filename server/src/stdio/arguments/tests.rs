//! Tests of the arguments of local mode.

use clap::{CommandFactory, Parser};
use mcp_entra_policy::{GET_USER_DETAILS, GraphPermissions, LIST_MY_MESSAGES};

use super::super::store::StoreKind;
use super::*;

const GUID: &str = "8f6b1c52-0d4e-4c0a-9b7f-2a1d3e4f5a6b";

/// Two tools that only read and are always known, and two that write.
const REGISTRY: &[BuiltInTool] = &[GET_USER_DETAILS, LIST_MY_MESSAGES, SEND, ARCHIVE];
const SEND: BuiltInTool = writing("send", &["Mail.Send"]);
const ARCHIVE: BuiltInTool = writing("archive", &["Mail.ReadWrite"]);

const fn writing(name: &'static str, delegated: &'static [&'static str]) -> BuiltInTool {
    BuiltInTool { name, writes: true, permissions: GraphPermissions { delegated, application: &[] } }
}

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    arguments: LocalArguments,
}

fn parsed(arguments: &[&str]) -> Result<LocalArguments, clap::Error> {
    Program::try_parse_from(["local"].iter().chain(arguments)).map(|program| program.arguments)
}

/// Returns the settings for tenant, client id and these arguments.
fn settings_of(registry: &[BuiltInTool], arguments: &[&str]) -> Result<Settings, SettingsError> {
    let required = ["--tenant", "contoso.com", "--client-id", GUID];
    let given = |flag: &str| arguments.iter().any(|argument| argument.starts_with(flag));
    let required = required.chunks(2).filter(|pair| !given(pair[0])).flatten();
    let arguments: Vec<&str> = required.chain(arguments).copied().collect();
    parsed(&arguments).unwrap().settings_with(registry, &MachinePolicy::default())
}

fn ok(arguments: &[&str]) -> Settings {
    settings_of(REGISTRY, arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn the_defaults_are_the_public_cloud_and_the_scopes_of_its_tools() {
    let expected = Settings {
        tenant: "contoso.com".into(),
        client_id: GUID.into(),
        authority: "https://login.microsoftonline.com".into(),
        graph_url: "https://graph.microsoft.com".into(),
        scopes: names(["Mail.Read", "User.Read"]),
        tools: names(["list_my_messages", "get_user_details"]),
        aliases: BTreeMap::new(),
        store: StoreKind::Os,
        device_code: false,
        trust_bundle: None,
        log_file: None,
        audit_file: None,
    };
    assert_eq!(ok(&[]), expected);
    let settings = settings_of(BUILT_IN_TOOLS, &[]).unwrap();
    assert!(settings.tools.contains("get_user_details") && settings.writing().next().is_none());
}

#[test]
fn each_argument_sets_its_own_setting() {
    let upper = GUID.to_uppercase();
    let change = |change: fn(&mut Settings)| {
        let mut settings = ok(&[]);
        change(&mut settings);
        settings
    };
    for (arguments, expected) in [
        (&["--tenant", "Fabrikam.com"][..], change(|settings| settings.tenant = "fabrikam.com".into())),
        (&["--client-id", &upper], change(|_| ())),
        (
            &["--cloud", "usgov"],
            change(|settings| {
                settings.authority = "https://login.microsoftonline.us".into();
                settings.graph_url = "https://graph.microsoft.us".into();
            }),
        ),
        (
            &["--cloud", "China", "--graph-url", "https://Graph.example:8443/"],
            change(|settings| {
                settings.authority = "https://login.partner.microsoftonline.cn".into();
                settings.graph_url = "https://graph.example:8443".into();
            }),
        ),
        (&["--authority", "https://[::1]:8443"], change(|settings| settings.authority = "https://[::1]:8443".into())),
        (&["--token-store", "os"], change(|_| ())),
        (&["--token-store", "file"], change(|settings| settings.store = StoreKind::File)),
        (&["--token-store", "memory"], change(|settings| settings.store = StoreKind::Memory)),
        (&["--device-code", "--sign-in"], change(|settings| settings.device_code = true)),
        (&["--device-code=true"], change(|settings| settings.device_code = true)),
        (&["--device-code=false"], change(|_| ())),
        (&["--trust-bundle", "/etc/ca.pem"], change(|settings| settings.trust_bundle = Some("/etc/ca.pem".into()))),
        (&["--log-file", "/tmp/a b,c"], change(|settings| settings.log_file = Some("/tmp/a b,c".into()))),
        (&["--audit-file", "/tmp/audit"], change(|settings| settings.audit_file = Some("/tmp/audit".into()))),
    ] {
        assert_eq!(ok(arguments), expected, "{arguments:?}");
    }
    let relative = ok(&["--log-file", "local.log"]).log_file.unwrap();
    assert_eq!(relative, std::env::current_dir().unwrap().join("local.log"));
}

#[test]
fn a_tool_is_offered_if_the_scopes_cover_it_and_one_that_writes_if_it_is_also_allowed() {
    for (arguments, scopes, tools) in [
        (&["--scopes", "User.Read"][..], names(["User.Read"]), names(["get_user_details"])),
        (
            &["--scopes", "User.Read, mail.read"],
            names(["User.Read", "mail.read"]),
            names(["list_my_messages", "get_user_details"]),
        ),
        (
            &["--scopes", "User.Read", "--scopes", "Calendars.Read"],
            names(["Calendars.Read", "User.Read"]),
            names(["get_user_details"]),
        ),
        // This scope covers Mail.Read, too, but still offers no tool that writes.
        (
            &["--scopes", "Mail.ReadWrite,Mail.Send"],
            names(["Mail.ReadWrite", "Mail.Send"]),
            names(["list_my_messages"]),
        ),
        (
            &["--allow", "send"],
            names(["Mail.Read", "Mail.Send", "User.Read"]),
            names(["list_my_messages", "get_user_details", "send"]),
        ),
        (
            &["--allow", "send,archive", "--scopes", "Mail.Send,Mail.ReadWrite"],
            names(["Mail.ReadWrite", "Mail.Send"]),
            { names(["archive", "list_my_messages", "send"]) },
        ),
    ] {
        let settings = ok(arguments);
        assert_eq!((settings.scopes, settings.tools), (scopes, tools), "{arguments:?}");
    }
}

#[test]
fn an_alias_is_a_further_name_of_an_offered_tool() {
    let settings =
        ok(&["--alias", "Who-am.I_=get_user_details,me=get_user_details", "--alias", "mail=list_my_messages"]);
    let expected = [("Who-am.I_", "get_user_details"), ("mail", "list_my_messages"), ("me", "get_user_details")];
    assert_eq!(settings.aliases, expected.map(|(name, tool)| (name.to_owned(), tool.to_owned())).into());
    assert_eq!(ok(&["--alias", &format!("{}=get_user_details", "x".repeat(64))]).aliases.len(), 1);
}

#[test]
fn a_wrong_value_is_refused_in_one_line_that_names_flag_and_variable_and_ends_with_the_next_step() {
    let long = format!("{}=get_user_details", "x".repeat(65));
    for (flag, value, part) in [
        ("--tenant", "common", "\"common\" means many tenants"),
        ("--tenant", "organizations", "means many tenants: use the GUID"),
        ("--tenant", "consumers", "means many tenants"),
        ("--tenant", "contoso", "neither a GUID nor a domain; copy"),
        ("--tenant", "a\nb", "neither"),
        ("--client-id", "contoso", "is not a GUID: copy"),
        ("--client-id", "00000000-0000-0000-0000-000000000000", "is not a GUID"),
        ("--scopes", "", "\"\", which is not a permission"),
        ("--scopes", "User.Read,", "\"\", which is not a permission"),
        ("--scopes", "https://graph.microsoft.com/User.Read", "use its plain name"),
        ("--scopes", "User Read", "use its plain name"),
        ("--scopes", "Calendars.Read", "not enough for any tool: add one of Mail.Read, User.Read"),
        ("--scopes", "Mail.Send", "not enough for any tool"),
        ("--allow", "sends", "\"sends\", which is not a tool: choose one of send, archive"),
        ("--allow", "Send", "\"Send\", which is not a tool"),
        ("--allow", "send*", "not a tool"),
        ("--allow", "", "not a tool"),
        (
            "--allow",
            "send,get_user_details",
            "get_user_details, which only reads and is offered without it: choose one of send, archive",
        ),
        ("--alias", "me", "NAME=TOOL"),
        ("--alias", "=get_user_details", "whose name clients do not accept"),
        ("--alias", "m e=get_user_details", "whose name clients do not accept"),
        ("--alias", &long, "whose name clients do not accept"),
        ("--alias", "list_my_messages=get_user_details", "already belongs to a tool"),
        ("--alias", "send=get_user_details", "already belongs to a tool"),
        ("--alias", "me=send", "choose one of get_user_details, list_my_messages, or allow it with --allow"),
        ("--alias", "me=nothing", "not an offered tool: choose one of get_user_details, list_my_messages"),
        ("--alias", "me=get_user_details,me=list_my_messages", "already an alias of another tool: choose another"),
        ("--cloud", "azure", "choose one of public, usgov, usgovdod, china"),
        ("--cloud", "", "choose one of"),
        ("--token-store", "disk", "choose one of os, file, memory"),
        ("--device-code", "maybe", "choose one of false, true"),
        ("--trust-bundle", "", "is not a file path"),
        ("--log-file", "", "is not a file path"),
        ("--audit-file", "", "is not a file path"),
    ] {
        let error = settings_of(REGISTRY, &[&format!("{flag}={value}")]).expect_err(value).to_string();
        assert!(error.contains(part), "{flag} {value}: {error}");
        assert!(error.starts_with(&format!("{flag} ({})", variable(flag))), "{flag} {value}: {error}");
        assert!(!error.contains('\n'), "{flag} {value}: {error}");
    }
}

#[test]
fn an_alias_of_an_unknown_tool_does_not_suggest_a_flag() {
    let error = settings_of(REGISTRY, &["--alias", "me=nothing"]).unwrap_err().to_string();
    assert!(error.ends_with("choose one of get_user_details, list_my_messages"), "{error}");
}

#[test]
fn a_tool_that_is_allowed_without_its_scope_is_refused() {
    let error = settings_of(REGISTRY, &["--scopes", "User.Read", "--allow", "send"]).unwrap_err().to_string();
    assert!(error.contains("--scopes (MCP_ENTRA_SCOPES) lacks Mail.Send, which send needs: add it"), "{error}");
}

#[test]
fn the_refusal_of_allow_says_if_no_tool_writes() {
    let readers: Vec<BuiltInTool> = REGISTRY.iter().filter(|tool| !tool.writes).copied().collect();
    let error = settings_of(&readers, &["--allow", "send"]).unwrap_err().to_string();
    assert!(error.ends_with("which is not a tool: remove it, because this version has no tool that writes"), "{error}");
}

#[test]
fn tenant_and_client_are_required() {
    for (arguments, flag) in [(["--tenant", "contoso.com"], "--client-id"), (["--client-id", GUID], "--tenant")] {
        let error = parsed(&arguments).unwrap().settings(&MachinePolicy::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{flag} ({}) is missing: ", variable(flag))), "{error}");
    }
}

#[test]
fn an_address_has_only_scheme_host_and_port_and_errors_never_quote_a_password() {
    for flag in ["--authority", "--graph-url"] {
        for url in [
            "http://login.example",
            "https://login.example/common",
            "https://login.example/?",
            "https://login.example/#x",
            "https://ann@login.example",
            "https://ann:hunter2@login.example",
            "https://",
            "login.example",
            "",
        ] {
            let error = settings_of(REGISTRY, &[flag, url]).expect_err(url).to_string();
            assert!(
                error.starts_with(&format!("{flag} ({})", variable(flag))) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}

#[test]
fn settings_stay_within_the_policy_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("local.yaml");
    std::fs::write(&file, "fileStore: Forbidden").unwrap();
    let policy = super::super::machine_policy::read(&file).unwrap();
    let of = |store| parsed(&["--tenant", "contoso.com", "--client-id", GUID, "--token-store", store]).unwrap();
    assert!(of("os").settings(&policy).is_ok());
    let error = of("file").settings(&policy).unwrap_err();
    assert!(matches!(error, SettingsError::Forbidden(_)) && error.to_string().contains("local.yaml"), "{error}");
}

#[test]
fn the_modes_exclude_each_other() {
    for (arguments, mode) in [
        (&[][..], Some(Mode::Serve)),
        (&["--device-code"], Some(Mode::Serve)),
        (&["--sign-in"], Some(Mode::SignIn)),
        (&["--sign-out"], Some(Mode::SignOut)),
        (&["--doctor"], Some(Mode::Doctor)),
        (&["--print-config", "vscode"], Some(Mode::PrintConfig(Client::VsCode))),
        (&["--print-config", "claude-desktop"], Some(Mode::PrintConfig(Client::ClaudeDesktop))),
        (&["--print-config", "claude-code"], Some(Mode::PrintConfig(Client::ClaudeCode))),
        (&["--print-config", "cursor"], Some(Mode::PrintConfig(Client::Cursor))),
        (&["--print-config", "codex"], Some(Mode::PrintConfig(Client::Codex))),
        (&["--print-config"], None),
        (&["--print-config", "emacs"], None),
        (&["--sign-in", "--sign-out"], None),
        (&["--doctor", "--print-config", "codex"], None),
    ] {
        assert_eq!(parsed(arguments).ok().map(|arguments| arguments.mode()), mode, "{arguments:?}");
    }
}

#[test]
fn the_arguments_of_settings_give_the_same_settings_again() {
    let required = ["--tenant=contoso.com".to_owned(), format!("--client-id={GUID}")];
    assert_eq!(settings_of(BUILT_IN_TOOLS, &[]).unwrap().arguments(), required, "defaults are left out");
    for arguments in [
        &["--tenant", GUID][..],
        &["--client-id", "5e1a0000-0d4e-4c0a-9b7f-2a1d3e4f5a6b"],
        &["--cloud", "usgovdod"],
        &["--authority", "https://login.example"],
        &["--graph-url", "https://graph.example"],
        &["--scopes", "User.Read"],
        &["--scopes=-x,User.Read,Mail.Read"],
        &["--allow", "send"],
        &["--allow", "send,archive", "--scopes", "Mail.Send,Mail.ReadWrite"],
        &["--alias=-x=get_user_details,b=list_my_messages"],
        &["--token-store", "file"],
        &["--token-store", "memory"],
        &["--device-code"],
        &["--trust-bundle", "-a b,c.pem"],
        &["--log-file", "log"],
        &["--audit-file", "audit"],
    ] {
        // A flag and a value that begins with a hyphen form one word.
        let arguments: Vec<String> = match arguments {
            [flag, value] => vec![format!("{flag}={value}")],
            arguments => arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        let settings = ok(&Vec::from_iter(arguments.iter().map(String::as_str)));
        assert_ne!(settings, ok(&[]), "{arguments:?} change nothing");
        let again = settings.arguments();
        let again = parsed(&Vec::from_iter(again.iter().map(String::as_str))).unwrap();
        assert_eq!(again.settings_with(REGISTRY, &MachinePolicy::default()), Ok(settings), "{arguments:?}");
    }
}

#[test]
fn each_flag_has_its_environment_variable_and_the_page_names_both() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/local.md");
    let page = std::fs::read_to_string(page).unwrap();
    let command = Program::command();
    let modes: Vec<&str> =
        command.get_groups().find(|group| group.get_id() == "mode").unwrap().get_args().map(|id| id.as_str()).collect();
    assert_eq!(modes.len(), 4);
    let mut flags = 0;
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
        let flag = format!("--{}", argument.get_long().unwrap());
        let variable = argument.get_env().map(|variable| variable.to_str().unwrap());
        match modes.contains(&argument.get_id().as_str()) {
            true => assert_eq!(variable, None, "{flag}"),
            false => {
                assert_eq!(variable, Some(&*super::variable(&flag)), "{flag}");
                let row = format!("| `{flag}` | `{}` |", super::variable(&flag));
                assert!(page.contains(&row), "docs/local.md has no row {row}");
                flags += 1;
            }
        }
        assert!(page.contains(&format!("`{flag}")), "docs/local.md does not name {flag}");
    }
    assert_eq!(flags, 13);
}
