-- A store of version 3: two syncs of a source, of whose relationships some wait for an end, with their
-- journals; as `sqlite3 .dump` writes it.
PRAGMA application_id = 1347570776;
PRAGMA user_version = 3;
BEGIN TRANSACTION;
CREATE TABLE px_meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO px_meta VALUES('epoch',2);
INSERT INTO px_meta VALUES('hash_seed',X'4ed5044c6bcc06b7');
INSERT INTO px_meta VALUES('journal_bytes',6369);
INSERT INTO px_meta VALUES('lineage',X'0082e380a1d2f82b21c56d71741c41c0');
INSERT INTO px_meta VALUES('store_id',X'ca19c0d2b5fdbd7f2d9a15e84a4b5243');
CREATE TABLE px_source (
    source_id          INTEGER PRIMARY KEY,
    connector_id       TEXT NOT NULL,
    account_id         TEXT NOT NULL,
    -- Counts the commits that changed the source's data.
    generation         INTEGER NOT NULL DEFAULT 0,
    -- Which process ran the last committed run, and that run's place among its runs.
    last_process       BLOB,
    last_run_no        INTEGER,
    last_sync          INTEGER,
    last_success_sync  INTEGER, -- committed or partial
    last_complete_sync INTEGER, -- committed
    entities           INTEGER NOT NULL DEFAULT 0,
    relationships      INTEGER NOT NULL DEFAULT 0, shape BLOB, changes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (connector_id, account_id)
);
INSERT INTO px_source VALUES(1,'moody','acme',2,X'4d5b5ed1901107c10baf82943bb79a02',1,2,2,2,37,22,X'cbc23f9de99850b81ba3e2327f6c4627',0);
CREATE TABLE px_sync (
    sync               INTEGER PRIMARY KEY,
    source_id          INTEGER NOT NULL,
    sync_id            TEXT NOT NULL,
    connector_version  TEXT NOT NULL,
    outcome            TEXT NOT NULL,
    fingerprint        BLOB NOT NULL,
    started_at         INTEGER NOT NULL,
    duration           INTEGER NOT NULL,
    committed_at       INTEGER NOT NULL,
    undelivered_events INTEGER NOT NULL,
    entities_created         INTEGER NOT NULL,
    entities_updated         INTEGER NOT NULL,
    entities_unchanged       INTEGER NOT NULL,
    entities_deleted         INTEGER NOT NULL,
    entities_kept            INTEGER NOT NULL,
    entities_held            INTEGER NOT NULL,
    entities_rejected        INTEGER NOT NULL,
    entities_duplicates      INTEGER NOT NULL,
    relationships_created    INTEGER NOT NULL,
    relationships_updated    INTEGER NOT NULL,
    relationships_unchanged  INTEGER NOT NULL,
    relationships_deleted    INTEGER NOT NULL,
    relationships_kept       INTEGER NOT NULL,
    relationships_held       INTEGER NOT NULL,
    relationships_rejected   INTEGER NOT NULL,
    relationships_duplicates INTEGER NOT NULL,
    UNIQUE (source_id, sync_id)
);
INSERT INTO px_sync VALUES(1,1,'01a20602-e374-7785-b999-b5ad3f761d21','','committed',X'860f3a45f2a912e362a16a83a36fd2ee',1795397182384413,785,1795397182387021,0,37,0,0,0,0,0,1,1,22,0,0,0,0,0,1,1);
INSERT INTO px_sync VALUES(2,1,'01a20602-e3d0-72fd-a42f-737747fe3afc','','committed',X'860f3a45f2a912e362a16a83a36fd2ee',1795397182423746,683,1795397182427007,0,0,0,37,0,0,0,1,1,0,0,22,0,0,0,1,1);
CREATE TABLE px_sync_step (
    sync          INTEGER NOT NULL,
    place         INTEGER NOT NULL,
    step_id       TEXT NOT NULL,
    status        TEXT NOT NULL,
    entities      INTEGER NOT NULL,
    relationships INTEGER NOT NULL,
    duration      INTEGER NOT NULL,
    reason        TEXT,
    PRIMARY KEY (sync, place)
) WITHOUT ROWID;
INSERT INTO px_sync_step VALUES(1,0,'users','completed',22,0,231,NULL);
INSERT INTO px_sync_step VALUES(1,1,'groups','completed',5,12,218,NULL);
INSERT INTO px_sync_step VALUES(1,2,'hosts','completed',12,12,68,NULL);
INSERT INTO px_sync_step VALUES(2,0,'users','completed',22,0,245,NULL);
INSERT INTO px_sync_step VALUES(2,1,'groups','completed',5,12,105,NULL);
INSERT INTO px_sync_step VALUES(2,2,'hosts','completed',12,12,69,NULL);
CREATE TABLE px_sync_type (
    sync      INTEGER NOT NULL,
    kind      INTEGER NOT NULL, -- 0 entity, 1 relationship
    name      TEXT NOT NULL,
    created   INTEGER NOT NULL,
    updated   INTEGER NOT NULL,
    unchanged INTEGER NOT NULL,
    deleted   INTEGER NOT NULL,
    kept      INTEGER NOT NULL,
    held      INTEGER NOT NULL,
    PRIMARY KEY (sync, kind, name)
) WITHOUT ROWID;
INSERT INTO px_sync_type VALUES(1,0,'group',5,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(1,0,'host',12,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(1,0,'user',20,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(1,1,'MEMBER_OF',5,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(1,1,'RUNS_ON',12,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(1,1,'USES',5,0,0,0,0,0);
INSERT INTO px_sync_type VALUES(2,0,'group',0,0,5,0,0,0);
INSERT INTO px_sync_type VALUES(2,0,'host',0,0,12,0,0,0);
INSERT INTO px_sync_type VALUES(2,0,'user',0,0,20,0,0,0);
INSERT INTO px_sync_type VALUES(2,1,'MEMBER_OF',0,0,5,0,0,0);
INSERT INTO px_sync_type VALUES(2,1,'RUNS_ON',0,0,12,0,0,0);
INSERT INTO px_sync_type VALUES(2,1,'USES',0,0,5,0,0,0);
CREATE TABLE px_name (
    name_id INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE
);
INSERT INTO px_name VALUES(1,'host');
INSERT INTO px_name VALUES(2,'user');
INSERT INTO px_name VALUES(3,'group');
INSERT INTO px_name VALUES(4,'RUNS_ON');
INSERT INTO px_name VALUES(5,'USES');
INSERT INTO px_name VALUES(6,'MEMBER_OF');
CREATE TABLE px_claims (
    claims_id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL,
    claims    TEXT NOT NULL,
    UNIQUE (source_id, claims)
);
INSERT INTO px_claims VALUES(1,1,'[["hosts",null]]');
INSERT INTO px_claims VALUES(2,1,'[["users",null]]');
INSERT INTO px_claims VALUES(3,1,'[["groups",null]]');
CREATE TABLE px_entity (
    n            INTEGER PRIMARY KEY,
    source_id    INTEGER NOT NULL,
    id           BLOB NOT NULL,
    hash         BLOB NOT NULL,
    claims       INTEGER NOT NULL,
    held         INTEGER, -- the changeset that holds its delete
    type         INTEGER NOT NULL,
    class        INTEGER,
    key          TEXT NOT NULL,
    display_name TEXT,
    properties   TEXT NOT NULL,
    created_sync INTEGER NOT NULL,
    changed_sync INTEGER NOT NULL
, checksum INTEGER);
INSERT INTO px_entity VALUES(1,1,X'02891a1ea62b7431a3e633ca886c6ffc',X'317c867891ef980fb0752890d935bcc0',1,NULL,1,NULL,'1',NULL,'{}',1,1,1297999962757800927);
INSERT INTO px_entity VALUES(2,1,X'045bced776b0d7ca1d8f9592e93c0d0b',X'068158891ffe1cb4e431e33bcc7151fe',1,NULL,1,NULL,'0',NULL,'{}',1,1,1883889651587451672);
INSERT INTO px_entity VALUES(3,1,X'068e1a71c35ff0ca0c90f22038bd46ad',X'f7882408b0abe82ff330dfbd88fc4794',2,NULL,2,NULL,'3',NULL,'{"revision":0}',1,1,3578021594941954157);
INSERT INTO px_entity VALUES(4,1,X'0891e5892852e302116cf8ea3ee22635',X'6e7fb198d9360f3a4c99fa7b809be14e',1,NULL,1,NULL,'6',NULL,'{}',1,1,-4824735706577723498);
INSERT INTO px_entity VALUES(5,1,X'10191ce203bad059d51ba6aff2e0afd3',X'6a7dfda04aaad7cd5f875de4fdbe5d05',3,NULL,3,NULL,'1',NULL,'{}',1,1,-4304084867992379720);
INSERT INTO px_entity VALUES(6,1,X'1163f0200f318617800f1a918ff1d749',X'9ee5bef422e0d9b9741f32e0b566ab65',2,NULL,2,NULL,'15',NULL,'{"revision":0}',1,1,6795991100093746228);
INSERT INTO px_entity VALUES(7,1,X'1ccb3983769df1793da44650983ef1a6',X'79e2895488bac5c9c74964448598e362',2,NULL,2,NULL,'8',NULL,'{"revision":0}',1,1,-1532215149939230170);
INSERT INTO px_entity VALUES(8,1,X'2738031e5b3a7f8e1f86c5addaa33969',X'0249ae2dea612181d0a0aaa8ad7bf831',2,NULL,2,NULL,'4',NULL,'{"revision":0}',1,1,-224473424870064997);
INSERT INTO px_entity VALUES(9,1,X'2b6de58dc16f07612c8c6d888ebbd900',X'7a83e13605cb16bcf42b5b334787d4f4',3,NULL,3,NULL,'0',NULL,'{}',1,1,-4665930731516718918);
INSERT INTO px_entity VALUES(10,1,X'3c9accddf3f3d410976e9dc4904fa1a2',X'cbed8dddbcf9fe17ac7d59a303354caa',1,NULL,1,NULL,'5',NULL,'{}',1,1,-1602428696916663489);
INSERT INTO px_entity VALUES(11,1,X'44f18e2078e8739c6c4c790f92bf85f1',X'c25fbf905229bc7dd7e8482a97b9e2c7',3,NULL,3,NULL,'4',NULL,'{}',1,1,-7678522997956552021);
INSERT INTO px_entity VALUES(12,1,X'4bd322848debdd18f0181bb84278efed',X'b5f71c150dace1c755acaddffebabf77',1,NULL,1,NULL,'9',NULL,'{}',1,1,-7384676237780391327);
INSERT INTO px_entity VALUES(13,1,X'4f93c44e57bf3fdc2b790b83bec078ed',X'73dd167f2588ee6ff4bfa50ff76669d6',2,NULL,2,NULL,'10',NULL,'{"revision":0}',1,1,742069209233181463);
INSERT INTO px_entity VALUES(14,1,X'530a825db0d0056d8fa3ebdbde9dc361',X'16eaefdd06112227a8e9e579faf0e58e',2,NULL,2,NULL,'5',NULL,'{"revision":0}',1,1,-6131602860273048461);
INSERT INTO px_entity VALUES(15,1,X'5316a171253982e752809d2e908b830e',X'84bc223635b5a386e5331acc6fd4ae65',1,NULL,1,NULL,'4',NULL,'{}',1,1,-4124573583905743176);
INSERT INTO px_entity VALUES(16,1,X'53bb715f73b0ca8f3362991dcacddfe4',X'25cfa8d717bc6e8034f61dd98acb8ba7',3,NULL,3,NULL,'3',NULL,'{}',1,1,7493058764142389491);
INSERT INTO px_entity VALUES(17,1,X'55495acf989443f0540e0bea18cf4ad6',X'45f442bd03c7d68ed1efc2bc7012c21d',2,NULL,2,NULL,'17',NULL,'{"revision":0}',1,1,1645490616202326437);
INSERT INTO px_entity VALUES(18,1,X'5bd3b8fa521a50fc25281e3e55a851b5',X'e3b19f48e0524a7d51498103fbb609ad',3,NULL,3,NULL,'2',NULL,'{}',1,1,475298754236659104);
INSERT INTO px_entity VALUES(19,1,X'627a68d2b650c35963b470a431dc0e7a',X'bc12ebf3ae4f03552e9fa9652eeb3a2c',2,NULL,2,NULL,'9',NULL,'{"revision":0}',1,1,-9079072933494157966);
INSERT INTO px_entity VALUES(20,1,X'6380158b315f1e86e649918ea8665fe4',X'31f4a6d8437c35b634052d6fa3495061',2,NULL,2,NULL,'0',NULL,'{"revision":0}',1,1,-80730929511265466);
INSERT INTO px_entity VALUES(21,1,X'8435ba15ec09fae15899ab33eae0cac8',X'c95e32323df3a49884740e13b0213de6',2,NULL,2,NULL,'11',NULL,'{"revision":0}',1,1,-3933516377470816060);
INSERT INTO px_entity VALUES(22,1,X'86d0bc1296dd63821387531bff26ed47',X'381cef32251afb7d95dd28da91570462',1,NULL,1,NULL,'11',NULL,'{}',1,1,4531950396171784324);
INSERT INTO px_entity VALUES(23,1,X'90c08ec8107a4a5e420ea5264ff11be6',X'24ea21464ec248fbebbbaacfc96095b2',2,NULL,2,NULL,'6',NULL,'{"revision":0}',1,1,8466423209096135823);
INSERT INTO px_entity VALUES(24,1,X'92441c9a1a234892218a028fa6c89648',X'c39fa6597d5e2939f82f8ae9d633d416',2,NULL,2,NULL,'19',NULL,'{"revision":0}',1,1,-2595217194631386981);
INSERT INTO px_entity VALUES(25,1,X'a169e2d64441dd76a26f566cd3fa613f',X'b1bd30521226a35bce8da26d6bbfaf91',2,NULL,2,NULL,'16',NULL,'{"revision":0}',1,1,4423361875292322312);
INSERT INTO px_entity VALUES(26,1,X'bc50c0f05500f3e101a785e05845508a',X'45e658a72c9698359e5d4ee6bddb1b90',2,NULL,2,NULL,'18',NULL,'{"revision":0}',1,1,-3065452237404173134);
INSERT INTO px_entity VALUES(27,1,X'cc3177152518e61d7d66b5c04d0184ed',X'fae295702891704f79a5ac030cd73cf2',2,NULL,2,NULL,'1',NULL,'{"revision":0}',1,1,4648820199364807830);
INSERT INTO px_entity VALUES(28,1,X'cee2c4d9ac00d3f7093af1abad9fb538',X'ae9cd3ab6629634d71a8c855ed825fac',2,NULL,2,NULL,'14',NULL,'{"revision":0}',1,1,5816784642011971240);
INSERT INTO px_entity VALUES(29,1,X'cfa521cf8953fdd69bd4ef502e0830e1',X'32e7f2415f788cb9492aad41d3a4f9c5',1,NULL,1,NULL,'7',NULL,'{}',1,1,-5455789308485849796);
INSERT INTO px_entity VALUES(30,1,X'd63a793d656f60434dd79c669d69c20a',X'02eff4f66ae1ee2256227e5f21e7f0da',2,NULL,2,NULL,'12',NULL,'{"revision":0}',1,1,-5252022960418745455);
INSERT INTO px_entity VALUES(31,1,X'd77dd925ca26054a459faa3ca2183eaa',X'bd0794693bc218f2536bc7f3b0f419ff',2,NULL,2,NULL,'7',NULL,'{"revision":0}',1,1,-6160774732839922898);
INSERT INTO px_entity VALUES(32,1,X'd9736a1a86a45cf0000f7abefebf484c',X'6406e79cef65af7c5169146f9f101bc6',2,NULL,2,NULL,'2',NULL,'{"revision":0}',1,1,-2058608689708148023);
INSERT INTO px_entity VALUES(33,1,X'da8b15d38eec8be5fab9f2ca80f8eba3',X'2628cafb16a5166c7303a28127ccdf73',2,NULL,2,NULL,'13',NULL,'{"revision":0}',1,1,528686423308023266);
INSERT INTO px_entity VALUES(34,1,X'dd5b8213e100a3e92b8357922122780b',X'31ad9e408029f363dbb6b4f871ebf344',1,NULL,1,NULL,'3',NULL,'{}',1,1,-2931194431653066316);
INSERT INTO px_entity VALUES(35,1,X'e1ada5af2499bf35fddcacbe87dd7e54',X'aaec7474b38a3c6350732408ae86dff0',1,NULL,1,NULL,'2',NULL,'{}',1,1,-198029975734092979);
INSERT INTO px_entity VALUES(36,1,X'eb84ca265a85a8166211855137999979',X'87d47fb050a68b5ab77943c9604045c2',1,NULL,1,NULL,'8',NULL,'{}',1,1,3906099839456763214);
INSERT INTO px_entity VALUES(37,1,X'f64fdf28fc8d9fa105985816091a665f',X'273ef4bd40b9e331c62c2cc818f4db22',1,NULL,1,NULL,'10',NULL,'{}',1,1,-750354058524607212);
CREATE TABLE px_relationship (
    n            INTEGER PRIMARY KEY,
    source_id    INTEGER NOT NULL,
    id           BLOB NOT NULL,
    hash         BLOB NOT NULL,
    claims       INTEGER NOT NULL,
    held         INTEGER,
    from_id      BLOB NOT NULL,
    verb         INTEGER NOT NULL,
    to_id        BLOB NOT NULL,
    key          TEXT,
    properties   TEXT NOT NULL,
    created_sync INTEGER NOT NULL,
    changed_sync INTEGER NOT NULL
, checksum INTEGER);
INSERT INTO px_relationship VALUES(1,1,X'0e70f7baf2570838c8f5d06b5e1a6e67',X'93c87aa3c2c08a84636f659ea7be3c9f',1,NULL,X'5316a171253982e752809d2e908b830e',4,X'02891a1ea62b7431a3e633ca886c6ffc',NULL,'{}',1,1,-1709409881204204550);
INSERT INTO px_relationship VALUES(2,1,X'2f673721b2d82069f5d542a3146859d3',X'8e3812520f98595974cfe85f0d086249',3,NULL,X'5bd3b8fa521a50fc25281e3e55a851b5',5,X'86d0bc1296dd63821387531bff26ed47',NULL,'{}',1,1,532640377532538200);
INSERT INTO px_relationship VALUES(3,1,X'3f9861b2c87f2688650b95d859fe87ae',X'1ef7a4bb38a170a2af4041af83077cbe',1,NULL,X'cfa521cf8953fdd69bd4ef502e0830e1',4,X'02891a1ea62b7431a3e633ca886c6ffc',NULL,'{}',1,1,3833506533798955155);
INSERT INTO px_relationship VALUES(4,1,X'4958517d5434d10000d80e199e00ec52',X'dd113d8fd96ef4380d4ff0367ae440cc',1,NULL,X'e1ada5af2499bf35fddcacbe87dd7e54',4,X'e1ada5af2499bf35fddcacbe87dd7e54',NULL,'{}',1,1,-9102284496885648788);
INSERT INTO px_relationship VALUES(5,1,X'5509851e269d5c03ce1f86897cb3b42b',X'5f553f7c156c74c2e40ec59052609264',3,NULL,X'cc3177152518e61d7d66b5c04d0184ed',6,X'10191ce203bad059d51ba6aff2e0afd3',NULL,'{"revision":0}',1,1,6546402285650061925);
INSERT INTO px_relationship VALUES(6,1,X'5b24be63c2e2b1afaa2b0af957e135cc',X'79b1cfc7e19687d3a7d0af6189cf8afe',1,NULL,X'eb84ca265a85a8166211855137999979',4,X'e1ada5af2499bf35fddcacbe87dd7e54',NULL,'{}',1,1,-8211331204662168139);
INSERT INTO px_relationship VALUES(7,1,X'62358f976dcae17d5f5d253fe066d971',X'99f5fe1464dac990b8c2aab79757c21f',1,NULL,X'86d0bc1296dd63821387531bff26ed47',4,X'e1ada5af2499bf35fddcacbe87dd7e54',NULL,'{}',1,1,8864752052958629910);
INSERT INTO px_relationship VALUES(8,1,X'66fae5485038d4c7c3257b5bfd0e37aa',X'b9dde24405b8b41570cd5250d3b7be7c',3,NULL,X'2738031e5b3a7f8e1f86c5addaa33969',6,X'44f18e2078e8739c6c4c790f92bf85f1',NULL,'{"revision":0}',1,1,7773545824243187426);
INSERT INTO px_relationship VALUES(9,1,X'6a93c4ba30bad4d48eaa68cd4d76238b',X'd1319c8772c583ff81b01202ea7df13e',3,NULL,X'44f18e2078e8739c6c4c790f92bf85f1',5,X'3765ad14581e01bcf856ac40e33833ff',NULL,'{}',1,1,5824424698557618073);
INSERT INTO px_relationship VALUES(10,1,X'6b3421ac0b473241d1ba7cc49a3bb218',X'526463f660046771ba5e25a00fbc145b',1,NULL,X'f64fdf28fc8d9fa105985816091a665f',4,X'02891a1ea62b7431a3e633ca886c6ffc',NULL,'{}',1,1,-1686575321827328289);
INSERT INTO px_relationship VALUES(11,1,X'71f040775ddde448e82d49b86622992e',X'9d02559319e817db61e4c1bcca78c47f',1,NULL,X'3c9accddf3f3d410976e9dc4904fa1a2',4,X'e1ada5af2499bf35fddcacbe87dd7e54',NULL,'{}',1,1,4720820492598151241);
INSERT INTO px_relationship VALUES(12,1,X'775a96a31d9e84f561b75bbc3265a4ae',X'a8d50ff6c1d0613bd5fcd0f98865dbd7',3,NULL,X'068e1a71c35ff0ca0c90f22038bd46ad',6,X'53bb715f73b0ca8f3362991dcacddfe4',NULL,'{"revision":0}',1,1,-2414798441214639895);
INSERT INTO px_relationship VALUES(13,1,X'84d8e1382af2320dbde3ded4b9785591',X'5c6d5a0723ab5776f7fda3981de02559',3,NULL,X'6380158b315f1e86e649918ea8665fe4',6,X'2b6de58dc16f07612c8c6d888ebbd900',NULL,'{"revision":0}',1,1,6620587729470211585);
INSERT INTO px_relationship VALUES(14,1,X'93fc6a2aafa093fb70f02836210c0308',X'94dcc4412d93f5a82f5994a2c2c37ec0',1,NULL,X'dd5b8213e100a3e92b8357922122780b',4,X'045bced776b0d7ca1d8f9592e93c0d0b',NULL,'{}',1,1,2973569874260237134);
INSERT INTO px_relationship VALUES(15,1,X'96c5cde3d843fa8940fb8d69d9089dda',X'0f0306be6b16683749c4d86052aea4ac',1,NULL,X'02891a1ea62b7431a3e633ca886c6ffc',4,X'02891a1ea62b7431a3e633ca886c6ffc',NULL,'{}',1,1,2770278825264608012);
INSERT INTO px_relationship VALUES(16,1,X'9e0e83cbc8f6f7efb1cebb453126b251',X'c4b67da55ca0f5dce5e8be31a09687ca',1,NULL,X'4bd322848debdd18f0181bb84278efed',4,X'045bced776b0d7ca1d8f9592e93c0d0b',NULL,'{}',1,1,3027268077522653045);
INSERT INTO px_relationship VALUES(17,1,X'a8bcb74bf7837274612b531c295ec436',X'7deb78d1848906c6c535bc38149a7044',3,NULL,X'd9736a1a86a45cf0000f7abefebf484c',6,X'5bd3b8fa521a50fc25281e3e55a851b5',NULL,'{"revision":0}',1,1,-2746040333866094738);
INSERT INTO px_relationship VALUES(18,1,X'b6e17a4173ae53e3ec06a4855f563b36',X'438d2cd53e44af3c5f05e7fa5e87a986',1,NULL,X'045bced776b0d7ca1d8f9592e93c0d0b',4,X'045bced776b0d7ca1d8f9592e93c0d0b',NULL,'{}',1,1,-3657614391329421647);
INSERT INTO px_relationship VALUES(19,1,X'ba0a245bc582744dbc37357911e9a154',X'a727e757d18dbce4ca39f6b69268556d',3,NULL,X'2b6de58dc16f07612c8c6d888ebbd900',5,X'4bd322848debdd18f0181bb84278efed',NULL,'{}',1,1,4074911495982334872);
INSERT INTO px_relationship VALUES(20,1,X'c8e91828613725363a16fc5a4c76c815',X'95bbd0323ebc5e09b9305174a02ff899',1,NULL,X'0891e5892852e302116cf8ea3ee22635',4,X'045bced776b0d7ca1d8f9592e93c0d0b',NULL,'{}',1,1,50168811743207697);
INSERT INTO px_relationship VALUES(21,1,X'df4fac189fabcd456b062f4aac662f77',X'd3b0804faebdc4be8122500f99c3000c',3,NULL,X'10191ce203bad059d51ba6aff2e0afd3',5,X'f64fdf28fc8d9fa105985816091a665f',NULL,'{}',1,1,-2709147060492672615);
INSERT INTO px_relationship VALUES(22,1,X'e5de30a9150f839fc49009338950aac5',X'19b1cfb58299794cbc91c6b2f57b3208',3,NULL,X'53bb715f73b0ca8f3362991dcacddfe4',5,X'ce74a04eb532b19ef3b04cd370715e49',NULL,'{}',1,1,-3927338270789857223);
CREATE TABLE px_edge_from (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO px_edge_from VALUES(X'02891a1ea62b7431a3e633ca886c6ffc',15);
INSERT INTO px_edge_from VALUES(X'045bced776b0d7ca1d8f9592e93c0d0b',18);
INSERT INTO px_edge_from VALUES(X'068e1a71c35ff0ca0c90f22038bd46ad',12);
INSERT INTO px_edge_from VALUES(X'0891e5892852e302116cf8ea3ee22635',20);
INSERT INTO px_edge_from VALUES(X'10191ce203bad059d51ba6aff2e0afd3',21);
INSERT INTO px_edge_from VALUES(X'2738031e5b3a7f8e1f86c5addaa33969',8);
INSERT INTO px_edge_from VALUES(X'2b6de58dc16f07612c8c6d888ebbd900',19);
INSERT INTO px_edge_from VALUES(X'3c9accddf3f3d410976e9dc4904fa1a2',11);
INSERT INTO px_edge_from VALUES(X'44f18e2078e8739c6c4c790f92bf85f1',9);
INSERT INTO px_edge_from VALUES(X'4bd322848debdd18f0181bb84278efed',16);
INSERT INTO px_edge_from VALUES(X'5316a171253982e752809d2e908b830e',1);
INSERT INTO px_edge_from VALUES(X'53bb715f73b0ca8f3362991dcacddfe4',22);
INSERT INTO px_edge_from VALUES(X'5bd3b8fa521a50fc25281e3e55a851b5',2);
INSERT INTO px_edge_from VALUES(X'6380158b315f1e86e649918ea8665fe4',13);
INSERT INTO px_edge_from VALUES(X'86d0bc1296dd63821387531bff26ed47',7);
INSERT INTO px_edge_from VALUES(X'cc3177152518e61d7d66b5c04d0184ed',5);
INSERT INTO px_edge_from VALUES(X'cfa521cf8953fdd69bd4ef502e0830e1',3);
INSERT INTO px_edge_from VALUES(X'd9736a1a86a45cf0000f7abefebf484c',17);
INSERT INTO px_edge_from VALUES(X'dd5b8213e100a3e92b8357922122780b',14);
INSERT INTO px_edge_from VALUES(X'e1ada5af2499bf35fddcacbe87dd7e54',4);
INSERT INTO px_edge_from VALUES(X'eb84ca265a85a8166211855137999979',6);
INSERT INTO px_edge_from VALUES(X'f64fdf28fc8d9fa105985816091a665f',10);
CREATE TABLE px_edge_to (
    entity       BLOB NOT NULL,
    relationship INTEGER NOT NULL,
    PRIMARY KEY (entity, relationship)
) WITHOUT ROWID;
INSERT INTO px_edge_to VALUES(X'02891a1ea62b7431a3e633ca886c6ffc',1);
INSERT INTO px_edge_to VALUES(X'02891a1ea62b7431a3e633ca886c6ffc',3);
INSERT INTO px_edge_to VALUES(X'02891a1ea62b7431a3e633ca886c6ffc',10);
INSERT INTO px_edge_to VALUES(X'02891a1ea62b7431a3e633ca886c6ffc',15);
INSERT INTO px_edge_to VALUES(X'045bced776b0d7ca1d8f9592e93c0d0b',14);
INSERT INTO px_edge_to VALUES(X'045bced776b0d7ca1d8f9592e93c0d0b',16);
INSERT INTO px_edge_to VALUES(X'045bced776b0d7ca1d8f9592e93c0d0b',18);
INSERT INTO px_edge_to VALUES(X'045bced776b0d7ca1d8f9592e93c0d0b',20);
INSERT INTO px_edge_to VALUES(X'10191ce203bad059d51ba6aff2e0afd3',5);
INSERT INTO px_edge_to VALUES(X'2b6de58dc16f07612c8c6d888ebbd900',13);
INSERT INTO px_edge_to VALUES(X'3765ad14581e01bcf856ac40e33833ff',9);
INSERT INTO px_edge_to VALUES(X'44f18e2078e8739c6c4c790f92bf85f1',8);
INSERT INTO px_edge_to VALUES(X'4bd322848debdd18f0181bb84278efed',19);
INSERT INTO px_edge_to VALUES(X'53bb715f73b0ca8f3362991dcacddfe4',12);
INSERT INTO px_edge_to VALUES(X'5bd3b8fa521a50fc25281e3e55a851b5',17);
INSERT INTO px_edge_to VALUES(X'86d0bc1296dd63821387531bff26ed47',2);
INSERT INTO px_edge_to VALUES(X'ce74a04eb532b19ef3b04cd370715e49',22);
INSERT INTO px_edge_to VALUES(X'e1ada5af2499bf35fddcacbe87dd7e54',4);
INSERT INTO px_edge_to VALUES(X'e1ada5af2499bf35fddcacbe87dd7e54',6);
INSERT INTO px_edge_to VALUES(X'e1ada5af2499bf35fddcacbe87dd7e54',7);
INSERT INTO px_edge_to VALUES(X'e1ada5af2499bf35fddcacbe87dd7e54',11);
INSERT INTO px_edge_to VALUES(X'f64fdf28fc8d9fa105985816091a665f',21);
CREATE TABLE px_waiting (
    relationship INTEGER NOT NULL,
    missing      BLOB NOT NULL,
    PRIMARY KEY (relationship, missing)
) WITHOUT ROWID;
INSERT INTO px_waiting VALUES(9,X'3765ad14581e01bcf856ac40e33833ff');
INSERT INTO px_waiting VALUES(22,X'ce74a04eb532b19ef3b04cd370715e49');
CREATE TABLE px_change (
    change       INTEGER PRIMARY KEY,
    sync         INTEGER NOT NULL,
    source_id    INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    action       TEXT NOT NULL,
    id           BLOB NOT NULL,
    hash         BLOB NOT NULL,
    claims       INTEGER NOT NULL,
    name         INTEGER NOT NULL, -- its type or verb
    class        INTEGER,
    key          TEXT,
    display_name TEXT,
    from_id      BLOB,
    to_id        BLOB,
    properties   TEXT NOT NULL,
    created_sync INTEGER NOT NULL,
    changed_sync INTEGER NOT NULL
, changeset INTEGER);
CREATE TABLE px_digest (
    source_id INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    sums      BLOB NOT NULL,
    PRIMARY KEY (source_id, kind)
);
CREATE TABLE px_changeset (
    changeset     INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id     INTEGER NOT NULL,
    sync          INTEGER NOT NULL, -- that held them
    reason        TEXT NOT NULL,
    entities      INTEGER NOT NULL, -- as it was opened
    relationships INTEGER NOT NULL,
    state         TEXT NOT NULL, -- open, approved, rejected; released: all came back
    closed_at     INTEGER,
    closed_sync   INTEGER -- the commit that deleted, or that released the last one
);
CREATE TABLE px_claim (
    source_id      INTEGER NOT NULL,
    step_id        TEXT NOT NULL,
    scope          TEXT,
    looked_sync    INTEGER,
    missed_sync    INTEGER,
    missed_because TEXT
);
INSERT INTO px_claim VALUES(1,'users',NULL,2,NULL,NULL);
INSERT INTO px_claim VALUES(1,'groups',NULL,2,NULL,NULL);
INSERT INTO px_claim VALUES(1,'hosts',NULL,2,NULL,NULL);
CREATE TABLE px_journal (
    chunk        INTEGER PRIMARY KEY, -- in the order in which they were stored
    run          INTEGER NOT NULL, -- a random number
    connector_id TEXT NOT NULL,
    account_id   TEXT NOT NULL,
    sync_id      TEXT NOT NULL,
    first_seq    INTEGER NOT NULL,
    last_seq     INTEGER NOT NULL,
    written_at   INTEGER NOT NULL,
    entries      TEXT NOT NULL, -- a JSON object in each line
    checksum     INTEGER NOT NULL -- over the entries
);
INSERT INTO px_journal VALUES(1,-2591103741003969408,'moody','acme','01a20602-e374-7785-b999-b5ad3f761d21',1,10,1795397182388460,replace('{"v":1,"seq":1,"at":"2026-11-23T01:26:22.384423Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"started","connector_version":"","steps":[{"step_id":"users","title":"Users","depends_on":[],"selected":true},{"step_id":"groups","title":"Groups","depends_on":["users"],"selected":true},{"step_id":"hosts","title":"Hosts","depends_on":[],"selected":true}]}\n{"v":1,"seq":2,"at":"2026-11-23T01:26:22.384575Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"step_started","step_id":"users"}\n{"v":1,"seq":3,"at":"2026-11-23T01:26:22.384786Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"records_rejected","step_id":"users","rule":"not_finite","count":1,"samples":["user \"7\": property weight is not a finite number"]}\n{"v":1,"seq":4,"at":"2026-11-23T01:26:22.384807Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"step_completed","step_id":"users","status":"completed","attempts":1,"entities":22,"relationships":0,"rejected":1,"duration_ms":0}\n{"v":1,"seq":5,"at":"2026-11-23T01:26:22.38485Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"step_started","step_id":"hosts"}\n{"v":1,"seq":6,"at":"2026-11-23T01:26:22.384918Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"step_completed","step_id":"hosts","status":"completed","attempts":1,"entities":12,"relationships":12,"rejected":0,"duration_ms":0}\n{"v":1,"seq":7,"at":"2026-11-23T01:26:22.384943Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"step_started","step_id":"groups"}\n{"v":1,"seq":8,"at":"2026-11-23T01:26:22.385139Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"records_rejected","step_id":"groups","rule":"not_finite","count":1,"samples":["user \"1\" MEMBER_OF group \"1\": property weight is not a finite number"]}\n{"v":1,"seq":9,"at":"2026-11-23T01:26:22.385163Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"step_completed","step_id":"groups","status":"completed","attempts":1,"entities":5,"relationships":12,"rejected":1,"duration_ms":0}\n{"v":1,"seq":10,"at":"2026-11-23T01:26:22.385207Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"completed","entities":39,"relationships":24,"duration_ms":0}','\n',char(10)),-7704193601934206216);
INSERT INTO px_journal VALUES(2,-2591103741003969408,'moody','acme','01a20602-e374-7785-b999-b5ad3f761d21',11,11,1795397182388502,'{"v":1,"seq":11,"at":"2026-11-23T01:26:22.388358Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e374-7785-b999-b5ad3f761d21","kind":"committed","outcome":"committed","replayed":false,"stats":{"entities_created":37,"entities_updated":0,"entities_unchanged":0,"entities_deleted":0,"entities_kept":0,"entities_held":0,"entities_rejected":1,"entities_duplicates":1,"relationships_created":22,"relationships_updated":0,"relationships_unchanged":0,"relationships_deleted":0,"relationships_kept":0,"relationships_held":0,"relationships_rejected":1,"relationships_duplicates":1}}',1247143262624610751);
INSERT INTO px_journal VALUES(3,-7403845911881992631,'moody','acme','01a20602-e3d0-72fd-a42f-737747fe3afc',1,10,1795397182427950,replace('{"v":1,"seq":1,"at":"2026-11-23T01:26:22.423756Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"started","connector_version":"","steps":[{"step_id":"users","title":"Users","depends_on":[],"selected":true},{"step_id":"groups","title":"Groups","depends_on":["users"],"selected":true},{"step_id":"hosts","title":"Hosts","depends_on":[],"selected":true}]}\n{"v":1,"seq":2,"at":"2026-11-23T01:26:22.423915Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"step_started","step_id":"users"}\n{"v":1,"seq":3,"at":"2026-11-23T01:26:22.424134Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"records_rejected","step_id":"users","rule":"not_finite","count":1,"samples":["user \"7\": property weight is not a finite number"]}\n{"v":1,"seq":4,"at":"2026-11-23T01:26:22.424162Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"step_completed","step_id":"users","status":"completed","attempts":1,"entities":22,"relationships":0,"rejected":1,"duration_ms":0}\n{"v":1,"seq":5,"at":"2026-11-23T01:26:22.424207Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"step_started","step_id":"hosts"}\n{"v":1,"seq":6,"at":"2026-11-23T01:26:22.424276Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"step_completed","step_id":"hosts","status":"completed","attempts":1,"entities":12,"relationships":12,"rejected":0,"duration_ms":0}\n{"v":1,"seq":7,"at":"2026-11-23T01:26:22.424298Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"step_started","step_id":"groups"}\n{"v":1,"seq":8,"at":"2026-11-23T01:26:22.424385Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"records_rejected","step_id":"groups","rule":"not_finite","count":1,"samples":["user \"1\" MEMBER_OF group \"1\": property weight is not a finite number"]}\n{"v":1,"seq":9,"at":"2026-11-23T01:26:22.424404Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"step_completed","step_id":"groups","status":"completed","attempts":1,"entities":5,"relationships":12,"rejected":1,"duration_ms":0}\n{"v":1,"seq":10,"at":"2026-11-23T01:26:22.424436Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"completed","entities":39,"relationships":24,"duration_ms":0}','\n',char(10)),-9073723341516129429);
INSERT INTO px_journal VALUES(4,-7403845911881992631,'moody','acme','01a20602-e3d0-72fd-a42f-737747fe3afc',11,11,1795397182427996,'{"v":1,"seq":11,"at":"2026-11-23T01:26:22.427829Z","connector_id":"moody","account_id":"acme","sync_id":"01a20602-e3d0-72fd-a42f-737747fe3afc","kind":"committed","outcome":"committed","replayed":false,"stats":{"entities_created":0,"entities_updated":0,"entities_unchanged":37,"entities_deleted":0,"entities_kept":0,"entities_held":0,"entities_rejected":1,"entities_duplicates":1,"relationships_created":0,"relationships_updated":0,"relationships_unchanged":22,"relationships_deleted":0,"relationships_kept":0,"relationships_held":0,"relationships_rejected":1,"relationships_duplicates":1}}',6139880196791602149);
DELETE FROM sqlite_sequence;
CREATE UNIQUE INDEX px_entity_compare ON px_entity (source_id, id, hash, claims, held, type);
CREATE INDEX px_entity_id ON px_entity (lower(hex(id)));
CREATE INDEX px_entity_type ON px_entity (type);
CREATE UNIQUE INDEX px_relationship_compare
    ON px_relationship (source_id, id, hash, claims, held, verb);
CREATE INDEX px_waiting_missing ON px_waiting (missing);
CREATE INDEX px_change_id ON px_change (lower(hex(id)));
CREATE VIEW parallax_sync AS
SELECT
    s.connector_id,
    s.account_id,
    y.sync_id,
    y.connector_version,
    y.outcome,
    strftime('%Y-%m-%dT%H:%M:%fZ', y.started_at / 1e6, 'unixepoch') AS started_at,
    y.duration / 1000 AS duration_ms,
    strftime('%Y-%m-%dT%H:%M:%fZ', y.committed_at / 1e6, 'unixepoch') AS committed_at,
    y.entities_created,
    y.entities_updated,
    y.entities_unchanged,
    y.entities_deleted,
    y.entities_kept,
    y.entities_held,
    y.entities_rejected,
    y.entities_duplicates,
    y.relationships_created,
    y.relationships_updated,
    y.relationships_unchanged,
    y.relationships_deleted,
    y.relationships_kept,
    y.relationships_held,
    y.relationships_rejected,
    y.relationships_duplicates,
    y.undelivered_events
FROM px_sync y
JOIN px_source s ON s.source_id = y.source_id;
CREATE VIEW parallax_sync_step AS
SELECT
    s.connector_id,
    s.account_id,
    y.sync_id,
    t.place,
    t.step_id,
    t.status,
    t.entities,
    t.relationships,
    t.duration / 1000 AS duration_ms,
    t.reason
FROM px_sync_step t
JOIN px_sync y ON y.sync = t.sync
JOIN px_source s ON s.source_id = y.source_id;
CREATE INDEX px_change_source ON px_change (source_id, sync);
CREATE INDEX px_sync_source ON px_sync (source_id, sync);
CREATE INDEX px_entity_held ON px_entity (source_id, held) WHERE held IS NOT NULL;
CREATE INDEX px_relationship_held ON px_relationship (source_id, held) WHERE held IS NOT NULL;
CREATE INDEX px_changeset_source ON px_changeset (source_id, state);
CREATE UNIQUE INDEX px_claim_name ON px_claim (source_id, step_id, ifnull(scope, x''));
CREATE VIEW parallax_source AS
SELECT
    s.connector_id,
    s.account_id,
    s.entities,
    s.relationships,
    (SELECT count(*) FROM px_entity e WHERE e.source_id = s.source_id AND e.held > 0)
        AS entities_held,
    (SELECT count(*) FROM px_relationship r WHERE r.source_id = s.source_id AND r.held > 0)
        AS relationships_held,
    (
        SELECT count(DISTINCT w.relationship)
        FROM px_waiting w JOIN px_relationship r ON r.n = w.relationship
        WHERE r.source_id = s.source_id
    ) AS relationships_waiting,
    (SELECT count(*) FROM px_sync y WHERE y.source_id = s.source_id) AS syncs,
    l.sync_id AS last_sync_id,
    l.outcome AS last_outcome,
    strftime('%Y-%m-%dT%H:%M:%fZ', l.committed_at / 1e6, 'unixepoch') AS last_sync_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.committed_at / 1e6, 'unixepoch') AS last_success_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', c.committed_at / 1e6, 'unixepoch') AS last_complete_at
FROM px_source s
LEFT JOIN px_sync l ON l.sync = s.last_sync
LEFT JOIN px_sync u ON u.sync = s.last_success_sync
LEFT JOIN px_sync c ON c.sync = s.last_complete_sync;
CREATE VIEW parallax_entity AS
SELECT
    s.connector_id,
    s.account_id,
    lower(hex(e.id)) AS id,
    t.name AS type,
    c.name AS class,
    e.key,
    coalesce(e.display_name, e.key) AS display_name,
    e.properties,
    k.claims,
    CASE WHEN e.held > 0 THEN e.held END AS held_changeset,
    i.sync_id AS created_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', i.committed_at / 1e6, 'unixepoch') AS created_at,
    u.sync_id AS changed_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.committed_at / 1e6, 'unixepoch') AS changed_at
FROM px_entity e
JOIN px_source s ON s.source_id = e.source_id
JOIN px_name t ON t.name_id = e.type
LEFT JOIN px_name c ON c.name_id = e.class
LEFT JOIN px_claims k ON k.claims_id = e.claims
LEFT JOIN px_sync i ON i.sync = e.created_sync
LEFT JOIN px_sync u ON u.sync = e.changed_sync;
CREATE VIEW parallax_entity_merged AS
SELECT
    e.id,
    e.type,
    e.class,
    e.key,
    e.display_name,
    e.properties,
    e.connector_id,
    e.account_id,
    (SELECT count(*) FROM px_entity o WHERE lower(hex(o.id)) = e.id) AS sources
FROM parallax_entity e
WHERE NOT EXISTS (
    SELECT 1
    FROM px_entity o JOIN px_source s ON s.source_id = o.source_id
    WHERE lower(hex(o.id)) = e.id AND (s.connector_id, s.account_id) < (e.connector_id, e.account_id)
);
CREATE VIEW parallax_relationship AS
SELECT
    s.connector_id,
    s.account_id,
    lower(hex(r.id)) AS id,
    lower(hex(r.from_id)) AS from_id,
    v.name AS verb,
    lower(hex(r.to_id)) AS to_id,
    r.key,
    r.properties,
    k.claims,
    CASE WHEN r.held > 0 THEN r.held END AS held_changeset,
    i.sync_id AS created_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', i.committed_at / 1e6, 'unixepoch') AS created_at,
    u.sync_id AS changed_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.committed_at / 1e6, 'unixepoch') AS changed_at
FROM px_relationship r
JOIN px_source s ON s.source_id = r.source_id
JOIN px_name v ON v.name_id = r.verb
LEFT JOIN px_claims k ON k.claims_id = r.claims
LEFT JOIN px_sync i ON i.sync = r.created_sync
LEFT JOIN px_sync u ON u.sync = r.changed_sync
WHERE r.n NOT IN (SELECT relationship FROM px_waiting);
CREATE VIEW parallax_change AS
SELECT
    s.connector_id,
    s.account_id,
    y.sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', y.committed_at / 1e6, 'unixepoch') AS changed_at,
    h.action,
    CASE h.kind WHEN 0 THEN 'entity' ELSE 'relationship' END AS kind,
    lower(hex(h.id)) AS id,
    n.name AS type,
    c.name AS class,
    h.key,
    coalesce(h.display_name, h.key) AS display_name,
    CASE h.kind WHEN 1 THEN lower(hex(h.from_id)) END AS from_id,
    CASE h.kind WHEN 1 THEN lower(hex(h.to_id)) END AS to_id,
    h.properties AS properties_before,
    k.claims AS claims_before,
    h.changeset
FROM px_change h
JOIN px_source s ON s.source_id = h.source_id
JOIN px_sync y ON y.sync = h.sync
JOIN px_name n ON n.name_id = h.name
LEFT JOIN px_name c ON c.name_id = h.class
LEFT JOIN px_claims k ON k.claims_id = h.claims;
CREATE VIEW parallax_changeset AS
SELECT
    c.changeset,
    s.connector_id,
    s.account_id,
    c.state,
    c.reason,
    (SELECT count(*) FROM px_entity e WHERE e.source_id = c.source_id AND e.held = c.changeset)
        AS entities,
    (SELECT count(*) FROM px_relationship r WHERE r.source_id = c.source_id AND r.held = c.changeset)
        AS relationships,
    c.entities AS entities_at_first,
    c.relationships AS relationships_at_first,
    o.sync_id AS held_by_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', o.committed_at / 1e6, 'unixepoch') AS held_at,
    d.sync_id AS closed_by_sync_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', c.closed_at / 1e6, 'unixepoch') AS closed_at
FROM px_changeset c
JOIN px_source s ON s.source_id = c.source_id
LEFT JOIN px_sync o ON o.sync = c.sync
LEFT JOIN px_sync d ON d.sync = c.closed_sync;
CREATE INDEX px_journal_sync ON px_journal (sync_id, run, first_seq);
CREATE VIEW parallax_journal AS
SELECT
    j.connector_id,
    j.account_id,
    j.sync_id,
    j.run,
    e.value ->> 'seq' AS seq,
    e.value ->> 'at' AS at,
    e.value ->> 'kind' AS kind,
    e.value ->> 'step_id' AS step_id,
    e.value AS entry
FROM px_journal j, json_each('[' || replace(j.entries, char(10), ',') || ']') e;
COMMIT;
