#!/bin/sh
# Makes the certificates anew that the tests show and trust. They are valid for a hundred years, but
# for one that has expired. None of the keys protects anything.
set -eu
cd "$(dirname "$0")"

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# Signs a certificate for this machine: NAME KEY FROM TO.
sign() {
    openssl req -new -key "$2" -subj "/CN=localhost" -out request.pem
    openssl ca -batch -config ca.cnf -notext -startdate "$3" -enddate "$4" \
        -in request.pem -out "$1" 2>/dev/null
}

cat > ca.cnf <<'CNF'
[ca]
default_ca = authority
[authority]
database = index.txt
new_certs_dir = .
rand_serial = yes
certificate = authority.pem
private_key = authority.key
default_md = sha256
policy = anything
x509_extensions = server
unique_subject = no
[anything]
commonName = supplied
[authority_is]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
CNF
: > index.txt

key authority.key
openssl req -new -key authority.key -subj "/CN=Parallax tests" -out request.pem
openssl ca -batch -config ca.cnf -notext -selfsign -keyfile authority.key -extensions authority_is \
    -startdate 20200101000000Z -enddate 21200101000000Z -in request.pem -out authority.pem 2>/dev/null
key server.key
sign server.pem server.key 20200101000000Z 21200101000000Z
# What a server sends: its own certificate, then that of who signed it.
cat authority.pem >> server.pem
sign expired.pem server.key 20200101000000Z 20210101000000Z
sign future.pem server.key 21190101000000Z 21200101000000Z
key renewed.key
sign renewed.pem renewed.key 20200101000000Z 21200101000000Z
openssl pkcs8 -topk8 -in server.key -passout pass:secret -out encrypted.key

rm -f authority.key request.pem ca.cnf index.txt* [0-9A-F]*.pem
