import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;

/** Asks for a redirect by both HTTP clients of Java: CA URL LOCATION VERSION. */
class Client {
    public static void main(String[] args) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var file = Files.newInputStream(Path.of(args[0]))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        SSLParameters parameters = context.getDefaultSSLParameters();
        parameters.setProtocols(new String[] {args[3]});
        HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .sslContext(context)
            .sslParameters(parameters)
            .build();
        URI url = URI.create(args[1]);
        for (int number = 0; number < 20; number++) {
            var answer = client.send(HttpRequest.newBuilder(url).build(), BodyHandlers.ofString());
            check(answer.statusCode(), answer.headers().firstValue("location").orElse(""), args[2]);
            String version = answer.sslSession().orElseThrow().getProtocol();
            if (!version.equals(args[3])) {
                throw new AssertionError(version);
            }
        }
        HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
        for (int number = 0; number < 20; number++) {
            var connection = (HttpsURLConnection) url.toURL().openConnection();
            connection.setInstanceFollowRedirects(false);
            check(connection.getResponseCode(), connection.getHeaderField("location"), args[2]);
            connection.getInputStream().close();
        }
        System.out.println("done");
    }

    static void check(int status, String location, String expected) {
        if (status != 302 || !location.equals(expected)) {
            throw new AssertionError(status + " " + location);
        }
    }
}
