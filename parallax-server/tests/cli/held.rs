use tempfile::TempDir;

use crate::desk::{find_users, run};

#[test]
fn held_deletes_are_done_once_approved() {
    let dir = TempDir::new().unwrap();
    assert_eq!(find_users(dir.path(), 12), 0);
    assert_eq!(find_users(dir.path(), 0), 6);
    let (code, held, _) = run(dir.path(), &["held"]);
    assert_eq!((code, held.lines().count()), (0, 3), "{held}");
    let (_, one, _) = run(dir.path(), &["held", "1"]);
    assert!(
        one.contains("\nparallax approve 1  deletes them\n"),
        "{one}"
    );

    let (code, _, stderr) = run(dir.path(), &["approve", "1"]);
    assert_eq!(code, 2, "{stderr}");
    let (code, stdout, stderr) = run(dir.path(), &["approve", "1", "--yes", "-v"]);
    let approved = "Approved changeset 1: deleted 12 entities of host, account here\n";
    assert_eq!((code, stdout.as_str()), (0, approved), "{stderr}");
    assert_eq!(stderr.matches("Changeset decided").count(), 1, "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    let sql = "SELECT changeset, count(*) AS n FROM parallax_change WHERE action = 'deleted'";
    let (_, rows, _) = run(dir.path(), &["query", "--json", sql]);
    assert_eq!(rows, "[\n{\"changeset\":1,\"n\":12}\n]\n");
    let (code, stdout, stderr) = run(dir.path(), &["held"]);
    assert_eq!(
        (code, stdout, stderr),
        (0, String::new(), "no held deletes\n".to_owned())
    );
}
