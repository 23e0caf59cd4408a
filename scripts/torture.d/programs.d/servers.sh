# Servers on the loopback device: started, loaded, asked, stopped.

# vary: ^(redis.log|again.log|dump.rdb)$
# subjects: redis-server
program_redis() {
    local ask="redis-cli -p $port"
    redis-server --port "$port" --bind 127.0.0.1 --dir . --save '' --logfile redis.log &
    local server=$!
    wait_until eval "$ask ping | grep -q PONG"
    redis-benchmark -p "$port" -n 10000 -c 20 -d 200 -t set,get,incr,lpush,sadd,hset,zadd,mset --csv | cut -d, -f1 &
    wait_until eval "$ask exists mylist | grep -q 1"
    # A snapshot while the load goes on: the child saves, the parent copies pages.
    $ask bgsave
    wait $!
    wait_until eval "$ask info persistence | grep -q rdb_bgsave_in_progress:0"
    $ask eval 'for i = 1, 20000 do redis.call("set", "k" .. i, string.rep("v", i % 500)) end return 7' 0
    $ask config set activedefrag no
    $ask bgsave
    wait_until eval "$ask info persistence | grep -q rdb_bgsave_in_progress:0"
    $ask info persistence | grep -aE 'rdb_last_bgsave_status|rdb_saves' | tr -d '\r'
    $ask dbsize
    $ask llen mylist
    $ask bgrewriteaof
    wait_until eval "$ask info persistence | grep -q aof_rewrite_in_progress:0"
    $ask shutdown nosave
    wait $server
    echo "redis-server $?"
    redis-check-rdb dump.rdb | grep -aE 'keys read|OK|looks' | sed 's/\[offset [0-9]*\] //'
    redis-server --port "$port" --bind 127.0.0.1 --dir . --save '' --logfile again.log &
    server=$!
    wait_until eval "$ask ping | grep -q PONG"
    $ask dbsize
    $ask shutdown nosave
    wait $server
    echo "redis-server again $?"
    grep -aciE 'crash|assert|panic' redis.log again.log
    rm -rf appendonlydir
}

# nginx's workers give up root; where their parent's log directory were closed to them, their logs would end with EACCES.
# vary: ^(access.log|error.log|wrk.out)$
# subjects: nginx wrk
program_nginx() {
    mkdir www temp && seq 50000 >www/file && echo hello >www/index.html && chmod 755 . www && chmod 777 temp
    cat >nginx.conf <<END
worker_processes 2; daemon off; pid $work/nginx.pid; error_log $work/error.log notice;
events { worker_connections 256; }
http {
    access_log $work/access.log; client_body_temp_path $work/temp; proxy_temp_path $work/temp;
    fastcgi_temp_path $work/temp; uwsgi_temp_path $work/temp; scgi_temp_path $work/temp;
    gzip on; gzip_types *; gzip_min_length 1;
    server { listen 127.0.0.1:$port reuseport; root $work/www; location /old { return 301 /; } }
}
END
    nginx -p "$work" -c nginx.conf -e error.log &
    local server=$!
    wait_until curl -sf "http://127.0.0.1:$port/"
    curl -s "http://127.0.0.1:$port/file" | md5sum
    curl -s --compressed "http://127.0.0.1:$port/file" | md5sum
    curl -s -o page -w '%{http_code}\n' "http://127.0.0.1:$port/none"
    curl -s -o page -w '%{http_code}\n' "http://127.0.0.1:$port/old"
    wrk -t2 -c20 -d2 -H 'Accept-Encoding: gzip' "http://127.0.0.1:$port/file" >wrk.out
    grep -E 'Non-2xx|Socket errors' wrk.out
    grep -c requests wrk.out
    nginx -p "$work" -c nginx.conf -e error.log -s reload
    # The old workers close their connections when they go.
    wait_until grep -q 'exited with code 0' error.log
    wait_until eval '[ "$(pgrep -c -P $server)" = 2 ]'
    wait_until curl -sf "http://127.0.0.1:$port/"
    wrk -t2 -c20 -d1 "http://127.0.0.1:$port/" >wrk.out
    grep -E 'Non-2xx|Socket errors' wrk.out
    nginx -p "$work" -c nginx.conf -e error.log -s quit
    wait $server
    echo "nginx $?"
    grep -cE 'alert|emerg|crit' error.log
    rm -f nginx.conf
}

# PostgreSQL will not run as root.
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups env HOME="$work" "$@"; }

# vary: ^(data/|bench.out|server.log)
# subjects: initdb pgbench psql
program_postgres() {
    PATH=/usr/lib/postgresql/15/bin:$PATH
    chown postgres . && export PGPORT=$port PGHOST=$work/socket PGDATA=$work/data
    as_postgres mkdir socket
    as_postgres initdb -A trust -U postgres --no-sync >/dev/null
    echo "initdb $?"
    as_postgres pg_ctl start -w -s -l server.log -o "-c listen_addresses= -c unix_socket_directories=$PGHOST -c fsync=off"
    echo "start $?"
    as_postgres pgbench -q -i -s 1 -U postgres postgres 2>&1 | grep -ciE 'error|fatal'
    as_postgres pgbench -n -c 4 -j 2 -t 250 -U postgres postgres >bench.out 2>&1
    echo "pgbench $?"
    grep -E 'actually processed|failed' bench.out
    as_postgres psql -U postgres -At -c 'SELECT count(*), sum(abalance) - sum((SELECT sum(delta) FROM pgbench_history)) * 0 IS NOT NULL FROM pgbench_accounts' -c 'SELECT count(*) FROM pgbench_history' -c 'SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET min_parallel_table_scan_size = 0; SELECT count(*), max(a.aid) FROM pgbench_accounts a JOIN pgbench_accounts b USING (aid)' postgres
    as_postgres psql -U postgres -At -c 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)' -c 'VACUUM FULL' -c 'SELECT pg_terminate_backend(pg_backend_pid())' postgres 2>&1 | grep -v socket
    as_postgres pg_ctl stop -w -s -m fast
    echo "stop $?"
    grep -cE 'PANIC|crashed|terminated by signal' server.log
    as_postgres pg_checksums -c 2>&1 | grep -c error
    # Files come and go by the clock; their number is no fact about the recorder.
    rm -rf data socket
}

# subjects: ssh-keygen
# vary: ^(rsa|ed25519|ecdsa)
program_ssh_keygen() {
    ssh-keygen -q -t rsa -b 2048 -N '' -C c -f rsa && ssh-keygen -q -t ed25519 -N pass -C c -f ed25519 && ssh-keygen -q -t ecdsa -N '' -C c -f ecdsa
    ssh-keygen -p -q -P pass -N '' -f ed25519
    ssh-keygen -lf rsa.pub | cut -d' ' -f1,3-
    ssh-keygen -lf /dev/null 2>&1
    echo text >text && ssh-keygen -q -Y sign -n file -f ed25519 text 2>/dev/null && ssh-keygen -Y check-novalidate -n file -s text.sig <text 2>&1 | cut -d' ' -f1-4
    rm text.sig
}

# sshd's child is in a chroot and under a seccomp filter that kills: nothing of it can reach a log after that.
# incomplete: .
# vary: ^(host|user|known|authorized|sshd.log)
program_sshd() {
    mkdir -p /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -C c -f user && cp user.pub authorized
    /usr/sbin/sshd -D -e -p "$port" -f /dev/null -h "$work/host" -o ListenAddress=127.0.0.1 -o PidFile=none -o UsePAM=no \
        -o StrictModes=no -o PermitRootLogin=yes -o AuthorizedKeysFile="$work/authorized" 2>sshd.log &
    local server=$!
    local ssh="ssh -F none -q -p $port -i user -o UserKnownHostsFile=known -o StrictHostKeyChecking=no -o BatchMode=yes root@127.0.0.1"
    wait_until $ssh true
    $ssh 'echo inside; exit 9'
    echo "ssh $?"
    seq 30000 | $ssh 'cat | md5sum'
    $ssh -tt 'tty | cut -c1-9; stty size' </dev/null
    kill $server
    wait $server
    echo "sshd $?"
    grep -ciE 'violation|fatal|SIGSYS|signal 31' sshd.log
}

# subjects: curl
program_curl() {
    seq 100000 >file
    python3 -m http.server --bind 127.0.0.1 "$port" >/dev/null 2>&1 &
    local server=$!
    wait_until curl -sf "http://127.0.0.1:$port/file"
    curl -s "http://127.0.0.1:$port/file" | md5sum
    curl -s --no-progress-meter -Z "http://127.0.0.1:$port/file" -o one "http://127.0.0.1:$port/file" -o two && cmp one two && echo same
    curl -s -o none -w '%{http_code} %{size_download}\n' -r 5-99 "http://127.0.0.1:$port/none"
    curl -s http://127.0.0.1:1/ ; echo "refused $?"
    kill $server
    wait $server
    echo "server $?"
}
