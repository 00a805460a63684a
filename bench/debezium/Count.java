// Debezium's embedded engine with a consumer that counts records made into JSON.
//
//   java -cp ... Count RECORDS CONFIG
//
// RECORDS  how many to wait for
// CONFIG   properties of the connector
//
// Prints how many came when the last one has come, and ends at once; ends with
// status 1 where the engine ends before that.

import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileReader;
import java.util.List;
import java.util.Properties;

public final class Count {
    private static long seen;

    public static void main(String[] args) throws Exception {
        long wanted = Long.parseLong(args[0]);
        Properties config = new Properties();
        try (FileReader in = new FileReader(args[1])) {
            config.load(in);
        }
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
                .using(config)
                .using((success, message, error) -> end(1))
                .notifying((records, committer) -> take(records, committer, wanted))
                .build();
        engine.run();
    }

    private static void take(List<ChangeEvent<String, String>> records,
            DebeziumEngine.RecordCommitter<ChangeEvent<String, String>> committer, long wanted)
            throws InterruptedException {
        seen += records.size();
        // The offset of the last record covers those before it.
        committer.markProcessed(records.get(records.size() - 1));
        committer.markBatchFinished();
        if (seen >= wanted) {
            end(0);
        }
    }

    private static void end(int status) {
        System.out.println(seen);
        System.out.flush();
        Runtime.getRuntime().halt(status);
    }
}
