EXPIRES_AT=$(date -d "+30 days" +%s 2>/dev/null || date -v+30d +%s)
curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/add" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "shortLink[objectType]=KalturaShortLink" \
-d "shortLink[systemName]=CAMPAIGN-Q4-2025" \
-d "shortLink[fullUrl]=https://your-portal.kaltura.com/media/entry_id/$KALTURA_ENTRY_ID" \
-d "shortLink[name]=Q4 Campaign Video" \
-d "shortLink[status]=2" \
-d "shortLink[expiresAt]=$EXPIRES_AT"
