import de.bwaldvogel.mongo.MongoCollection;
import de.bwaldvogel.mongo.MongoDatabase;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.CollectionOptions;
import de.bwaldvogel.mongo.backend.CursorRegistry;
import de.bwaldvogel.mongo.backend.QueryResult;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.h2.H2Collection;
import de.bwaldvogel.mongo.backend.h2.H2Database;
import de.bwaldvogel.mongo.bson.Document;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import org.h2.mvstore.MVMap;
import org.h2.mvstore.MVStore;

/** A server of MongoDB's protocol: {@code java MongoServerLauncher FOLDER PORT}. Ends on SIGTERM, with all it was told. */
public class MongoServerLauncher {
    /** mongo-java-server says 8 of itself, and PyMongo 4.20 speaks to 9 and newer only. */
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    };

    /** Of the whole process: what is overridden below is called before its constructors could set a field. */
    private static MVStore store;

    public static void main(String[] arguments) throws IOException {
        Path folder = Path.of(arguments[0]);
        store = new MVStore.Builder().fileName(folder.resolve("data").toString()).open();
        Backend backend = new Backend();
        backend.version(VERSION);
        MongoServer server = new MongoServer(backend);
        server.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        Files.writeString(folder.resolve("pid"), String.valueOf(ProcessHandle.current().pid()));
        Files.writeString(folder.resolve("ready"), "");
    }

    private static final class Backend extends H2Backend {
        Backend() {
            super(store);
        }

        @Override
        protected MongoDatabase openOrCreateDatabase(String name) {
            return new Databases(name, getCursorRegistry());
        }
    }

    private static final class Databases extends H2Database {
        Databases(String name, CursorRegistry cursors) {
            super(name, store, cursors);
        }

        @Override
        protected MongoCollection<Object> openOrCreateCollection(String name, CollectionOptions options) {
            String full = getFullCollectionNamespace(name);
            MVMap<Object, Document> data = store.openMap("databases." + full);
            return new Copies(this, name, options, data, store.openMap("meta." + full), cursorRegistry);
        }
    }

    /** MongoDB shows a document as it was before an update or after it; the original, halfway through one too. */
    private static final class Copies extends H2Collection {
        Copies(MongoDatabase database, String name, CollectionOptions options, MVMap<Object, Document> data,
                MVMap<String, Object> meta, CursorRegistry cursors) {
            super(database, name, options, data, meta, cursors);
        }

        @Override
        protected QueryResult matchDocumentsFromStream(Document query, Stream<Document> documents, int skip, int limit,
                int batchSize, Comparator<Document> order, Document fields) {
            Stream<Document> copies = documents.filter(found -> documentMatchesQuery(found, query))
                .map(Document::cloneDeeply);
            return super.matchDocumentsFromStream(query, copies, skip, limit, batchSize, order, fields);
        }
    }
}
