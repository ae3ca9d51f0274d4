//! The documents say what is there.

use regent::api::endpoints::ROUTES;

#[test]
fn every_route_is_documented_and_no_other() {
    let text = include_str!("../../docs/api.md");
    let documented: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let real: Vec<String> =
        ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(documented, real);
}

#[test]
fn every_command_is_documented() {
    let text = include_str!("../../docs/cli.md");
    let cli = <regent::cli::args::Cli as clap::CommandFactory>::command();
    for command in cli.get_subcommands() {
        let heading = format!("\n## regent {}\n", command.get_name());
        assert!(text.contains(&heading), "docs/cli.md lacks {heading:?}");
    }
}
